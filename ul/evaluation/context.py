"""What the evaluations of one command share: feature networks, statistics of real images."""

import contextlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from ul.config import RunConfig
from ul.core.errors import ConfigError, DataError
from ul.data import datasets, pipeline
from ul.metrics import clip_score, references
from ul.metrics.clip_score import ClipNetwork
from ul.metrics.extractors import MissingWeights
from ul.metrics.features import pixels
from ul.metrics.streaming import (
    FULL,
    METRICS,
    ROWS,
    SOURCES,
    Extractor,
    Provider,
    Reference,
    Statistics,
)

PROBES = 64


def data_digest(examples) -> str:
    """Sixteen hex digits of a data set: 64 of its images, spread over it."""
    return pipeline.fingerprint(examples, max(1, len(examples) // PROBES), PROBES)


def examples_of(config: RunConfig, split: str):
    """A split once, in order, without augmentation."""
    return (
        datasets.plain_train(config)
        if split == "train"
        else datasets.dataset(config, split)
    )


def kept_rows(total: int) -> np.ndarray:
    """Positions whose features are kept for precision and recall."""
    return datasets.spread(total, ROWS)


class Shared:
    """Networks, and statistics of real images: seen once, whatever is compared."""

    def __init__(self, networks: Provider, weights_dir: str | None = None):
        self.networks, self._dir = networks, weights_dir
        self._clip: ClipNetwork | None = None
        self._seen: dict[Any, Statistics] = {}
        self._given: dict[Any, Reference] = {}

    def clip(self) -> ClipNetwork:
        """CLIP, read when first asked for.

        Raises:
          Missing: its files are not there, or their reader is not. DataError: damaged.
        """
        if self._dir is None:
            raise MissingWeights(
                "CLIP is not here; give --weights_dir or set UL_WEIGHTS"
            )
        self._clip = self._clip or clip_score.load_network(self._dir)
        return self._clip

    def no_clip(self) -> str | None:
        """Why there is no CLIP; None if there is."""
        try:
            self.clip()
        except (MissingWeights, ConfigError) as e:
            return str(e)
        return None

    def statistics(
        self,
        config: RunConfig,
        split: str,
        needs: Collection[str],
        mesh: jax.sharding.Mesh,
    ) -> Statistics:
        """Of up to 50,000 images of a split.

        Raises:
          DataError: it has one.
        """
        at = (split, frozenset(needs))
        if at not in self._seen:
            examples = examples_of(config, split)
            if len(examples) < 2:
                raise DataError(
                    f"the {split} split holds {len(examples)} image; an evaluation needs "
                    "two or more"
                )
            chosen = datasets.spread(len(examples), FULL)
            extract = Extractor(needs, self.networks, mesh)
            seen = Statistics(needs, kept_rows(len(chosen)))
            for part in datasets.parts(config, examples, chosen, f"{split} images"):
                seen.add(extract(part["image"]))
            self._seen[at] = seen
        return self._seen[at]

    def training(
        self, config: RunConfig, needs: Collection[str], mesh: jax.sharding.Mesh
    ) -> Reference:
        """The run's own training images as a reference."""
        seen = self.statistics(config, "train", needs, mesh)
        examples = datasets.plain_train(config)
        total = len(examples)
        protocol = {
            "file": None,
            "data": f"training split, {'all' if total <= FULL else 'a fixed random'} "
            f"{seen.count} of {total}, no augmentation",
            "num_images": seen.count,
            "data_digest": data_digest(examples),
        }
        gaussians = {
            need: seen.gaussian(need)
            for need in seen.needs
            if need not in ("pool_rows", "probs")
        }
        rows = seen.rows if "pool_rows" in seen.needs else None
        return Reference(gaussians, rows, protocol)

    def given(
        self, path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh
    ) -> Reference:
        """The reference in a file, its protocol checked against the networks here.

        Raises:
          ConfigError, DataError: as `references.read` and `references.check_networks`.
        """

        def pool(image: np.ndarray) -> np.ndarray:
            network = self.networks.get("inception")
            return network.on(mesh)(image=image)["pool"]

        if path not in self._given:
            found = references.read(path, shape, pool)
            held = [need for need in SOURCES if found.has(need)]
            networks = {}
            for name in {SOURCES[need][0] for need in held} - {pixels.NAME}:
                with contextlib.suppress(
                    MissingWeights
                ):  # its metrics are not measured
                    networks[name] = self.networks.get(name)
            references.check_networks(found, tuple(held), networks)
            self._given[path] = found
        return self._given[path]


def needs_of(names: Collection[str], referenced: bool = False) -> tuple[str, ...]:
    """What these metrics need of samples, or of the reference."""
    metrics = [METRICS[name] for name in names if name in METRICS]
    found = {m.need for m in metrics if m.referenced or not referenced}
    return tuple(sorted(found))
