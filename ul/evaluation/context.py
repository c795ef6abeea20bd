"""The evaluated run, the feature networks and the statistics of real images."""

import collections
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from ul.core.errors import ConfigError, DataError
from ul.data import pipeline
from ul.data.datasets import Datasets, fixed_subset
from ul.evaluation.request import Request
from ul.inference import api
from ul.inference import weights as stored_weights
from ul.metrics import clip_score, references
from ul.metrics.clip_score import ClipNetwork
from ul.metrics.extractors import MissingWeights
from ul.metrics.metric import GENERATION, RECONSTRUCTION
from ul.metrics.streaming import (
    FEATURE_SOURCES,
    FULL_COUNT,
    MAX_ROWS,
    FeatureExtractor,
    FeatureNetworkProvider,
    FeatureStatistics,
    Reference,
    network_of,
)
from ul.objectives import held_out
from ul.stages.stage import Stage

log = logging.getLogger("ul")
NUM_DIGEST_IMAGES = 64


def data_digest(examples) -> str:
    """Return sixteen hex digits of a dataset: a digest of 64 images, evenly spaced."""
    stride = max(1, len(examples) // NUM_DIGEST_IMAGES)
    return pipeline.fingerprint(examples, stride, NUM_DIGEST_IMAGES)


def kept_rows(total: int) -> np.ndarray:
    """Return the positions of the images whose features precision and recall compare."""
    return fixed_subset(total, MAX_ROWS)


def training_progress(workdir: str, step: int) -> str:
    """Return how far the training of the evaluated weights had progressed."""
    steps = stored_weights.load_run(workdir).record["config"].get("steps")
    return "imported weights" if steps is None else f"step {step:,} of {steps:,}"


def class_names(workdir: str) -> list[str]:
    """Return the names of the classes that the run was trained with; [] if they have none."""
    dataset = stored_weights.load_run(workdir).provenance.get("dataset", {})
    return list(dataset.get("train", {}).get("classes", {}))


def changed_splits(workdir: str, datasets: Datasets) -> list[str]:
    """Return the splits whose files are not those that the run was trained with, and warn.

    Only the splits that are open are compared. Runs of older versions recorded no files.
    """
    recorded = stored_weights.load_run(workdir).provenance.get("dataset", {})
    changed = [
        split
        for split, about in datasets.report().items()
        if split in recorded and recorded[split]["digest"] != about["digest"]
    ]
    for split in changed:
        log.warning(
            "the files of the %s split changed since training; these numbers are of the "
            "present files",
            split,
        )
    return changed


class EvaluationContext:
    """Feature networks and statistics of real images, shared by a command's evaluations."""

    def __init__(
        self, networks: FeatureNetworkProvider, weights_dir: str | None = None
    ):
        self.networks, self._weights_dir = networks, weights_dir
        self._clip: ClipNetwork | None = None
        self._statistics: dict[Any, FeatureStatistics] = {}
        self._references: dict[str, Reference] = {}
        self._printed: set[tuple[str, str]] = set()

    def print_skipped(self, skipped: Mapping[str, str]) -> None:
        """Print each reason with its skipped metrics, and a pair of both only once."""
        names = collections.defaultdict(list)
        for name, reason in skipped.items():
            if (name, reason) not in self._printed:
                names[reason].append(name)
        for reason, skipped_names in names.items():
            print(f"skipped: {', '.join(skipped_names)}: {reason}", flush=True)
        self._printed |= set(skipped.items())

    def clip(self) -> ClipNetwork:
        """Return CLIP, which the first call reads.

        Raises:
          MissingWeights: its files or the package that reads them are missing.
          DataError: a file is damaged.
        """
        if self._weights_dir is None:
            raise MissingWeights(
                "CLIP needs a directory of weights; none was passed. Create it once (python "
                "-m ul convert --help), then pass --weights_dir or set UL_WEIGHTS."
            )
        self._clip = self._clip or clip_score.load_network(self._weights_dir)
        return self._clip

    def clip_obstacle(self) -> str | None:
        """Return why CLIP is not available, or None."""
        try:
            self.clip()
        except (MissingWeights, ConfigError) as e:
            return str(e)
        return None

    def statistics(
        self,
        datasets: Datasets,
        split: str,
        features: Collection[str],
        mesh: jax.sharding.Mesh,
        limit: int = FULL_COUNT,
    ) -> FeatureStatistics:
        """Return the statistics of at most `limit` images of a split, computed once.

        Raises:
          DataError: the split holds fewer than two images.
        """
        key = (split, frozenset(features), limit)
        if key not in self._statistics:
            examples = datasets.ordered(split)
            if len(examples) < 2:
                raise DataError(
                    f"The {split} split must hold at least 2 images to compare with; it "
                    f"holds {len(examples)}."
                )
            chosen = fixed_subset(len(examples), limit)
            extract = FeatureExtractor(features, self.networks, mesh)
            statistics = FeatureStatistics(features, kept_rows(len(chosen)))
            for part in datasets.chunks(examples, chosen, f"{split} images"):
                statistics.add(extract(part["image"]))
            self._statistics[key] = statistics
        return self._statistics[key]

    def training_reference(
        self,
        datasets: Datasets,
        features: Collection[str],
        mesh: jax.sharding.Mesh,
        count: int,
    ) -> Reference:
        """Return the run's own training images as a reference for `count` images.

        The field compares 50,000 samples with the whole training set. Fewer samples are
        compared with at most 50,000 images, and the title of the metric names their count.
        """
        examples = datasets.unaugmented_train
        total = len(examples)
        limit = max(total, FULL_COUNT) if count >= FULL_COUNT else FULL_COUNT
        statistics = self.statistics(datasets, "train", features, mesh, limit)
        protocol = {
            "file": None,
            "data": "training split, "
            f"{'all' if total <= limit else 'a fixed random'} {statistics.count} of "
            f"{total}, no augmentation",
            "num_images": statistics.count,
            "data_digest": data_digest(examples),
        }
        return statistics.as_reference(protocol)

    def file_reference(
        self, path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh
    ) -> Reference:
        """Return the reference in a file, checked against the networks in use.

        Raises:
          ConfigError, DataError: as `references.read` and `references.check_networks`.
        """

        def pool(image: np.ndarray) -> np.ndarray:
            network = self.networks.get("inception")
            return network.on_mesh(mesh)(image=image)["pool"]

        if path not in self._references:
            reference = references.read(path, shape, pool)
            features = [f for f in FEATURE_SOURCES if reference.has(f)]
            networks = {}
            for name in {n for f in features if (n := network_of(f)) is not None}:
                with contextlib.suppress(MissingWeights):  # its metrics are skipped
                    networks[name] = self.networks.get(name)
            references.check_widths(reference, shape, networks)
            references.check_networks(reference, tuple(features), networks)
            self._references[path] = reference
        return self._references[path]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedRun:
    """A loaded run and what its evaluation needs. count: number of examples or samples."""

    evaluation: ClassVar[str]

    request: Request
    context: EvaluationContext
    autoencoder: api.Autoencoder
    count: int

    @property
    def stage(self) -> Stage:
        """The stage of the run."""
        return self.autoencoder.stage

    @property
    def datasets(self) -> Datasets:
        """The examples of the run."""
        return self.autoencoder.datasets

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, [H, W, C] or [T, H, W, C]."""
        return self.autoencoder.image_shape

    @property
    def num_pixels(self) -> int:
        """The pixels of one example: what bits are divided by."""
        return int(np.prod(self.shape[:-1]))

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices that the run is evaluated on."""
        return self.autoencoder.mesh

    @property
    def step(self) -> int:
        """The step of the evaluated checkpoint."""
        return self.autoencoder.step

    @property
    def networks(self) -> FeatureNetworkProvider:
        """The feature networks."""
        return self.context.networks

    @property
    def measures_decoded(self) -> bool:
        """Whether decoded training images are compared with the reference of the samples."""
        return False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedAutoencoder(EvaluatedRun):
    """An autoencoder whose reconstructions of held-out examples are evaluated."""

    evaluation = RECONSTRUCTION

    @functools.cached_property
    def rate_terms(self) -> dict[str, float]:
        """Every term of the objective on held-out examples, in bits per pixel.

        Computed once for all metrics that need it.
        """
        objective, settings = self.stage.held_out_objective, self.stage.evaluation
        assert objective is not None
        moments = held_out.HeldOut(objective, num_draws=settings.num_draws)(
            self.autoencoder.params,
            self.datasets.eval_batches(self.datasets.eval, self.count),
            api.seed_key(self.request.seed),
            batch_size=settings.batch_size,
            prepare=lambda batch: batch,
            mesh=self.mesh,
        )
        terms: dict[str, float] = {}
        for name, moment in moments.items():
            if name.endswith("_nats"):
                key = name.removesuffix("_nats") + "_bpp"
                bpp, sem = held_out.bits_per_pixel(moment, self.num_pixels)
                terms |= {key: bpp, f"{key}_sem": sem}
        return terms


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedGenerator(EvaluatedRun):
    """A generator whose samples are evaluated."""

    evaluation = GENERATION

    generator: api.Generator

    @property
    def stage(self) -> Stage:
        return self.generator.stage

    @property
    def datasets(self) -> Datasets:
        return self.generator.datasets

    @property
    def step(self) -> int:
        return self.generator.step

    @property
    def measures_decoded(self) -> bool:
        is_on = self.request.decoded or self.stage.evaluation.decoded
        return is_on and self.stage.uses_stage1
