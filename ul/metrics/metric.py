"""The kinds of metrics: what a row of the registry states, and how its numbers are computed."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from ul.metrics.extractors import FEATURE_NETWORKS, MissingWeights
from ul.metrics.streaming import (
    FULL_COUNT,
    Comparison,
    FeatureNetworkProvider,
    network_of,
)

# An evaluation measures reconstructions of held-out examples, or samples.
RECONSTRUCTION, GENERATION = "reconstruction", "generation"
# The rank of one example of each kind of data.
IMAGES, CLIPS = "images", "clips"
RANKS = {IMAGES: 3, CLIPS: 4}
HIGHER, LOWER = "higher", "lower"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """One number of a metric: its key in an evaluation's JSON, and its column in tables.

    better: HIGHER, LOWER, or "" for a number that others are read against. in_page: in the
    page of a sweep's report; every column is in its CSV. plotted: drawn against the rate.
    """

    key: str
    title: str
    better: str = ""
    format: str = "{:.3f}"
    in_page: bool = True
    plotted: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric. Its class says how its numbers are computed.

    name: the choice of --metrics. evaluation: RECONSTRUCTION or GENERATION. data: the
    kinds of examples it is defined for, whose sides must be at least min_side and divisible
    by side_multiple. requirement: what it needs besides, in words. protocol: what a reader
    must know about the numbers, or a function of the shape that returns it. expected: a
    sweep's report names the metric where no trial has it. per_run: it has one value for a
    run, whatever the number of samples and the guidance.
    """

    name: str
    evaluation: str
    description: str
    columns: tuple[ColumnSpec, ...]
    data: tuple[str, ...] = (IMAGES, CLIPS)
    min_count: int = 2
    min_side: int = 1
    side_multiple: int = 1
    requirement: str = ""
    protocol: str | Callable[[Shape], str] = ""
    expected: bool = False
    per_run: bool = False

    @property
    def feature_network(self) -> str | None:
        """The pretrained network that the metric needs; None needs no weights."""
        return None

    @property
    def title(self) -> str:
        """The title of its first column; its name where it has no column."""
        return self.columns[0].title if self.columns else self.name

    @property
    def keys(self) -> tuple[str, ...]:
        """Its keys in an evaluation's JSON."""
        return tuple(column.key for column in self.columns)

    def supports(self, shape: Shape) -> bool:
        """Whether the metric is defined for examples of this shape."""
        return len(shape) in {RANKS[kind] for kind in self.data}

    def obstacle(
        self, shape: Shape, count: int, networks: FeatureNetworkProvider
    ) -> str | None:
        """Return why `count` examples of this shape cannot be measured, or None.

        Raises:
          DataError: the weights of the network are damaged.
        """
        height, width = shape[-3:-1]
        if min(height, width) < self.min_side:
            return (
                f"needs sides of at least {self.min_side} pixels; got {height}x{width}"
            )
        if height % self.side_multiple or width % self.side_multiple:
            return (
                f"needs sides divisible by {self.side_multiple}; got {height}x{width}"
            )
        if count < self.min_count:
            return f"needs at least {self.min_count} images; got {count}"
        if self.feature_network is not None:
            try:
                networks.get(self.feature_network)
            except MissingWeights as e:
                return str(e)
        return None

    def requirements(self) -> list[str]:
        """Return everything that the metric needs, for the documentation."""
        needs = [self.requirement] if self.requirement else []
        if self.min_side > 1:
            needs.append(f"sides of at least {self.min_side} pixels")
        if self.side_multiple > 1:
            needs.append(f"sides divisible by {self.side_multiple}")
        if self.min_count > 2:
            needs.append(f"at least {self.min_count} images")
        if self.feature_network is not None:
            needs.append(f"`{FEATURE_NETWORKS[self.feature_network].module.FILE}`")
        return needs

    def describe_protocol(self, shape: Shape) -> str:
        """Return what a reader must know about the numbers of examples of this shape."""
        return self.protocol if isinstance(self.protocol, str) else self.protocol(shape)

    def column_title(self, column: ColumnSpec, count: int) -> str:
        """Return the title of a column for numbers of `count` examples."""
        return column.title

    def markdown_cells(self) -> tuple[str, ...]:
        """Return its line in the documentation's table (`registry.markdown`)."""
        arrows = {
            c.key: {HIGHER: " ↑", LOWER: " ↓"}.get(c.better, "") for c in self.columns
        }
        return (
            f"`{self.name}`",
            {RECONSTRUCTION: "reconstructions", GENERATION: "samples"}[self.evaluation],
            ", ".join(self.data),
            ", ".join(f"`{key}`{arrows.get(key, '')}" for key in self.keys),
            "; ".join(self.requirements()),
            self.description,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairMetric(Metric):
    """A metric of each reconstruction and its original, averaged over the examples.

    values(original, reconstruction) -> [N] of uint8 [N, H, W, C]; with `network` it also
    takes `network=`, that network's function of two images. per_frame: clips are measured
    frame by frame. numbers(values) -> the number of every column; the mean by default.
    """

    values: Callable[..., np.ndarray]
    network: str | None = None
    per_frame: bool = True
    numbers: Callable[[np.ndarray], dict[str, float]] | None = None

    @property
    def feature_network(self) -> str | None:
        return self.network

    def summarize(self, values: np.ndarray) -> dict[str, float]:
        """Return the metric's numbers from the values [N] of all examples."""
        if self.numbers is not None:
            return self.numbers(values)
        return mean_and_sem(self.columns[0].key, values)


def mean_and_sem(key: str, values: np.ndarray) -> dict[str, float]:
    """Return the mean of values [N] as `key`, and its standard error as `<key>_sem`."""
    numbers = {key: float(values.mean())}
    if len(values) > 1:
        numbers[f"{key}_sem"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    return numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMetric(Metric):
    """A metric of a set of features (`streaming.FEATURE_SOURCES`) of all images.

    value(comparison, feature): the Frechet distance by default. referenced: it compares
    with a reference. held_out_key, decoded_key: the JSON keys of the same value for held-out
    images, and with --decoded for decoded training images, beside that of samples. Numbers
    of a pretrained network are printed with their count, as "FID@500", unless they are of
    50,000 images.
    """

    feature: str
    data: tuple[str, ...] = (IMAGES,)
    value: Callable[[Comparison, str], float] = Comparison.frechet_distance
    referenced: bool = True
    held_out_key: str = ""
    decoded_key: str = ""

    @property
    def feature_network(self) -> str | None:
        return network_of(self.feature)

    def column_title(self, column: ColumnSpec, count: int) -> str:
        if self.feature_network is None or count >= FULL_COUNT:
            return column.title
        return f"{column.title}@{count}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunMetric(Metric):
    """A metric that needs the run: `computation` names a `Measurement` of ul/evaluation.

    arrays: keys of the JSON whose values are lists, which figures show and no table.
    """

    computation: str
    arrays: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (*super().keys, *self.arrays)


def required_features(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Return the sets of features that these metrics need, in a fixed order."""
    return tuple(sorted({m.feature for m in metrics if isinstance(m, FeatureMetric)}))
