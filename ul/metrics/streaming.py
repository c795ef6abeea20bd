"""The field's metrics on streams of images: what each needs to see, and its value.

Images come in parts and are never held together; what is kept is the moments of their
features, and for precision and recall the features themselves.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from ul.core.errors import DataError
from ul.metrics import frechet, precision_recall
from ul.metrics.extractors import MissingWeights, Network
from ul.metrics.features import pixels
from ul.metrics.inception_score import SPLIT_SIZE, InceptionScore

# The field's numbers are of 50,000 samples; fewer are printed with their count.
FULL = 50_000
# The ADM evaluator takes so many reference images for precision and recall.
ROWS = 10_000

# What is kept of a stream: the network and the part of its features it is made of.
SOURCES: Mapping[str, tuple[str, str | None]] = {
    "pool": ("inception", "pool"),
    "pool_rows": ("inception", "pool"),
    "spatial": ("inception", "spatial"),
    "probs": ("inception", "probs"),
    "dinov2": ("dinov2", None),
    "i3d": ("i3d", None),
    pixels.NAME: (pixels.NAME, None),
}


class Provider(Protocol):
    """Who has the feature networks (`networks.Networks`)."""

    def get(self, name: str) -> Network: ...


class Extractor:
    """Host images to everything that `needs` are made of, on a mesh."""

    def __init__(
        self, needs: Collection[str], networks: Provider, mesh: jax.sharding.Mesh
    ):
        self.needs = tuple(needs)
        self.networks = {
            name: networks.get(name)
            for name in sorted({SOURCES[need][0] for need in needs} - {pixels.NAME})
        }
        self._run = {name: n.on(mesh) for name, n in self.networks.items()}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [N, H, W, C] to features [N, d] by need."""
        seen = {name: run(image=image) for name, run in self._run.items()}
        if pixels.NAME in self.needs:
            seen[pixels.NAME] = pixels.features(image)
        found = {}
        for need in self.needs:
            network, part = SOURCES[need]
            found[need] = seen[network] if part is None else seen[network][part]
        return found


class Statistics:
    """What is kept of features that come in parts and in order."""

    def __init__(self, needs: Collection[str], keep: np.ndarray | None = None):
        """`keep`: positions, ascending, whose rows are kept; None keeps all."""
        self.needs, self.count, self._keep = tuple(needs), 0, keep
        self._moments: dict[str, frechet.FeatureMoments] = {}
        self._rows: list[np.ndarray] = []
        self.score = InceptionScore()

    def add(self, features: Mapping[str, np.ndarray]) -> None:
        """The next rows, each need's [N, d].

        Raises:
          DataError: a feature is not finite.
        """
        rows = max((len(features[need]) for need in self.needs), default=0)
        for need in self.needs:
            if not np.all(np.isfinite(features[need])):
                raise DataError(
                    f"{need} features of images {self.count}.. are not finite"
                )
            if need == "probs":
                self.score.add(features[need])
            elif need == "pool_rows":
                self._rows.append(self._kept(features[need]))
            else:
                part = frechet.FeatureMoments.from_features(features[need])
                before = self._moments.get(need)
                self._moments[need] = before.merge(part) if before else part
        self.count += rows

    def _kept(self, rows: np.ndarray) -> np.ndarray:
        if self._keep is None:
            return rows
        here = self._keep[
            (self._keep >= self.count) & (self._keep < self.count + len(rows))
        ]
        return rows[here - self.count]

    def gaussian(self, need: str) -> frechet.Gaussian:
        """Mean and covariance of one set of features."""
        return self._moments[need].gaussian()

    def rows(self) -> np.ndarray:
        """The kept rows of Inception's pool."""
        return np.concatenate(self._rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the score, for a file; `restore` is the way back."""
        found = {
            f"{need}/{name}": value
            for need, moments in self._moments.items()
            for name, value in moments.to_arrays().items()
        }
        rows = {"pool_rows": self.rows()} if self._rows else {}
        return found | rows | {"count": np.asarray(self.count, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What `arrays` gave, in place of what was seen so far."""
        self.count = int(arrays["count"])
        if "pool_rows" in arrays:
            self._rows = [arrays["pool_rows"]]
        for need in set(self.needs) - {"pool_rows", "probs"}:
            parts = {k: arrays[f"{need}/{k}"] for k in ("count", "mean", "outer")}
            self._moments[need] = frechet.FeatureMoments.from_arrays(parts)


@dataclasses.dataclass(frozen=True)
class Reference:
    """What samples are compared with: Gaussians by need, and rows for precision."""

    gaussians: Mapping[str, frechet.Gaussian]
    rows: Callable[[], np.ndarray] | None
    protocol: dict[str, Any]

    def has(self, need: str) -> bool:
        return need in self.gaussians or need == "pool_rows" and self.rows is not None


class Comparison:
    """Samples against a reference."""

    def __init__(self, seen: Statistics, reference: Reference | None):
        self.seen, self._reference = seen, reference

    @property
    def reference(self) -> Reference:
        assert self._reference is not None, "asked of a metric that needs one"
        return self._reference

    @functools.cached_property
    def precision_recall(self) -> tuple[float, float]:
        assert self.reference.rows is not None
        rows = self.reference.rows()
        _same_width("pool", self.seen.rows().shape[1], rows.shape[1])
        if len(rows) <= precision_recall.NEIGHBORS:
            raise DataError(f"a reference of {len(rows)} images has no neighbours")
        return precision_recall.precision_recall(self.seen.rows(), rows)

    def frechet(self, need: str) -> float:
        """Raises DataError for a reference of other dimensions."""
        ours, theirs = self.seen.gaussian(need), self.reference.gaussians[need]
        _same_width(need, len(ours[0]), len(theirs[0]))
        return frechet.distance(ours, theirs)


def _same_width(need: str, ours: int, theirs: int) -> None:
    if ours != theirs:
        raise DataError(
            f"the reference's {need} features have {theirs} dimensions, not {ours}; "
            "it was made by another network"
        )


@dataclasses.dataclass(frozen=True)
class Metric:
    """What it needs of samples, whether of a reference too, what it is called in print
    (None: its own name says enough), its value, and the fewest samples it takes."""

    need: str
    value: Callable[[Comparison], float]
    printed: str | None = None
    referenced: bool = True
    least: int = 2
    rank: int = 3


def _frechet(need: str, printed: str | None, rank: int = 3) -> Metric:
    return Metric(need, lambda c: c.frechet(need), printed, rank=rank)


METRICS: Mapping[str, Metric] = {
    "frechet": _frechet(pixels.NAME, None),
    "reconstruction_frechet": _frechet(pixels.NAME, None),
    "fid": _frechet("pool", "FID"),
    "rfid": _frechet("pool", "rFID"),
    "sfid": _frechet("spatial", "sFID"),
    "inception_score": Metric("probs", lambda c: c.seen.score.value(), "IS", False),
    "precision": Metric(
        "pool_rows",
        lambda c: c.precision_recall[0],
        "precision",
        least=precision_recall.NEIGHBORS + 1,
    ),
    "recall": Metric(
        "pool_rows",
        lambda c: c.precision_recall[1],
        "recall",
        least=precision_recall.NEIGHBORS + 1,
    ),
    "fd_dinov2": _frechet("dinov2", "FD-DINOv2"),
    # Logits of an action classifier on whole clips [T, H, W, C].
    "fvd": _frechet("i3d", "FVD", rank=4),
}


def printed(name: str, count: int) -> str | None:
    """What the metric is called in print: FID only of 50,000 samples, else FID@count."""
    title = METRICS[name].printed if name in METRICS else None
    return title if title is None or count >= FULL else f"{title}@{count}"


def obstacle(
    name: str, shape: tuple[int, ...], count: int, networks: Provider
) -> str | None:
    """Why a metric of images of this shape cannot be measured here; None if it can.

    Raises:
      DataError: its weights are damaged.
    """
    metric = METRICS[name]
    if metric.need == pixels.NAME:
        return (
            None
            if pixels.supports_shape(shape)
            else f"{pixels.NAME}: sides divisible by 8"
        )
    if count < metric.least:
        return f"needs {metric.least} images or more, not {count}"
    try:
        networks.get(SOURCES[metric.need][0])
    except MissingWeights as e:
        return str(e)
    return None


def protocol(
    names: Collection[str], references: Mapping[str, Reference], networks: Provider
) -> dict[str, Any]:
    """What the values of these metrics need said: networks, references, constants."""
    chosen = [name for name in names if name in METRICS]
    used = {SOURCES[METRICS[name].need][0] for name in chosen} - {pixels.NAME}
    found: dict[str, Any] = {
        "networks": {name: networks.get(name).protocol() for name in sorted(used)},
        # Most have the same reference: each is said once, with its metrics.
        "references": _by_reference(references),
    }
    if "inception_score" in chosen:
        found["inception_score"] = f"mean of splits of {SPLIT_SIZE}, in order"
    if {"precision", "recall"} & set(chosen):
        found["precision_recall"] = (
            f"k = {precision_recall.NEIGHBORS}, at most {ROWS} reference images, distances in "
            "float64 (the ADM evaluator's are float16)"
        )
    return found


def _by_reference(references: Mapping[str, Reference]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for name, reference in references.items():
        entry = found.setdefault(id(reference), {"metrics": [], **reference.protocol})
        entry["metrics"].append(name)
    return list(found.values())
