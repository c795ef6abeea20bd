"""Statistics of features of images that come in batches, and metrics of two sets of them.

Images are never held together. Only the moments of their features are kept and, for
precision and recall, the features themselves.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ul.core.errors import DataError
from ul.metrics import frechet, precision_recall
from ul.metrics.extractors import FeatureNetwork
from ul.metrics.features import pixels
from ul.metrics.inception_score import InceptionScore

# The field reports its metrics of 50,000 samples; of fewer the count is named.
FULL_COUNT = 50_000
# The ADM evaluator uses this many reference images for precision and recall.
MAX_ROWS = 10_000


class FeatureSource(NamedTuple):
    """The network that computes a set of features, and the part of its output (None: all)."""

    network: str
    part: str | None


FEATURE_SOURCES: Mapping[str, FeatureSource] = {
    "pool": FeatureSource("inception", "pool"),
    "pool_rows": FeatureSource("inception", "pool"),
    "spatial": FeatureSource("inception", "spatial"),
    "probs": FeatureSource("inception", "probs"),
    "dinov2": FeatureSource("dinov2", None),
    "i3d": FeatureSource("i3d", None),
    pixels.NAME: FeatureSource(pixels.NAME, None),
}
# For these, the rows or the inception score are kept instead of mean and covariance.
WITHOUT_GAUSSIAN = ("pool_rows", "probs")


def network_of(feature: str) -> str | None:
    """Return the pretrained network behind a set of features; None for the 8x8 pixels."""
    network = FEATURE_SOURCES[feature].network
    return None if network == pixels.NAME else network


class FeatureNetworkProvider(Protocol):
    """An object that loads feature networks by name, such as `extractors.FeatureNetworks`."""

    def get(self, name: str) -> FeatureNetwork: ...


class FeatureExtractor:
    """Computes sets of features of host images on a mesh, each network once."""

    def __init__(
        self,
        features: Collection[str],
        networks: FeatureNetworkProvider,
        mesh: jax.sharding.Mesh,
    ):
        self.features = tuple(features)
        names = {network for f in features if (network := network_of(f)) is not None}
        self.networks = {name: networks.get(name) for name in sorted(names)}
        self._apply = {n: net.on_mesh(mesh) for n, net in self.networks.items()}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features [N, d] of uint8 images [N, H, W, C], by name."""
        outputs = {name: apply(image=image) for name, apply in self._apply.items()}
        if pixels.NAME in self.features:
            outputs[pixels.NAME] = pixels.features(image)
        rows = {}
        for feature in self.features:
            network, part = FEATURE_SOURCES[feature]
            rows[feature] = outputs[network] if part is None else outputs[network][part]
        return rows


class FeatureStatistics:
    """Moments and rows of features that are added in batches and in order."""

    def __init__(self, features: Collection[str], keep: np.ndarray | None = None):
        """`keep`: ascending positions whose rows of `pool_rows` are kept; None keeps all."""
        self.features, self.count, self._keep = tuple(features), 0, keep
        self._moments: dict[str, frechet.FeatureMoments] = {}
        self._rows: list[np.ndarray] = []
        self.score = InceptionScore()

    def add(self, features: Mapping[str, np.ndarray]) -> None:
        """Add the next rows [N, d] of every set of features.

        Raises:
          DataError: a feature is not finite.
        """
        for name in self.features:
            rows = features[name]
            if not np.all(np.isfinite(rows)):
                raise DataError(
                    f"{name} features must be finite; those of images {self.count} to "
                    f"{self.count + len(rows) - 1} are not. Check the weights of the "
                    "network."
                )
            if name == "probs":
                self.score.add(rows)
            elif name == "pool_rows":
                self._rows.append(self._select(rows))
            else:
                moments = frechet.FeatureMoments.from_features(rows)
                earlier = self._moments.get(name)
                self._moments[name] = earlier.merge(moments) if earlier else moments
        self.count += max((len(features[name]) for name in self.features), default=0)

    def _select(self, rows: np.ndarray) -> np.ndarray:
        """The rows of this batch whose positions are kept."""
        if self._keep is None:
            return rows
        first, last = np.searchsorted(self._keep, (self.count, self.count + len(rows)))
        return rows[self._keep[first:last] - self.count]

    def gaussian(self, feature: str) -> frechet.Gaussian:
        """Return mean and covariance of one set of features."""
        return self._moments[feature].gaussian()

    def rows(self) -> np.ndarray:
        """Return the kept rows of Inception's pool."""
        return np.concatenate(self._rows)

    def as_reference(self, protocol: dict[str, Any]) -> "Reference":
        """Return these statistics as what others are compared with."""
        gaussians = {
            feature: self.gaussian(feature)
            for feature in self.features
            if feature not in WITHOUT_GAUSSIAN
        }
        rows = self.rows if "pool_rows" in self.features else None
        return Reference(gaussians, rows, protocol)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything except the inception score, for a file; see `restore`."""
        arrays = {
            f"{feature}/{name}": value
            for feature, moments in self._moments.items()
            for name, value in moments.to_arrays().items()
        }
        rows = {"pool_rows": self.rows()} if self._rows else {}
        return arrays | rows | {"count": np.asarray(self.count, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace these statistics by those that `to_arrays` returned."""
        self.count = int(arrays["count"])
        if "pool_rows" in arrays:
            self._rows = [arrays["pool_rows"]]
        for feature in set(self.features) - set(WITHOUT_GAUSSIAN):
            own = {k: arrays[f"{feature}/{k}"] for k in ("count", "mean", "outer")}
            self._moments[feature] = frechet.FeatureMoments.from_arrays(own)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Statistics that samples are compared with.

    gaussians: mean and covariance by set of features. rows: returns the pool features for
    precision and recall. protocol: where the statistics come from, for the record.
    """

    gaussians: Mapping[str, frechet.Gaussian]
    rows: Callable[[], np.ndarray] | None
    protocol: dict[str, Any]

    def has(self, feature: str) -> bool:
        """Whether a metric of these features can be compared with this reference."""
        has_rows = feature == "pool_rows" and self.rows is not None
        return feature in self.gaussians or has_rows


class Comparison:
    """Statistics of samples and of a reference, which is None if no metric needs it."""

    def __init__(self, samples: FeatureStatistics, reference: Reference | None):
        self.samples, self._reference = samples, reference

    @property
    def reference(self) -> Reference:
        """The reference; a metric that reads it must be declared as `referenced`."""
        assert self._reference is not None
        return self._reference

    @functools.cached_property
    def precision_recall(self) -> tuple[float, float]:
        """Precision and recall, which share one computation.

        Raises:
          DataError: the reference is too small or was made by another network.
        """
        assert self.reference.rows is not None
        rows = self.reference.rows()
        _check_width("pool", self.samples.rows().shape[1], rows.shape[1])
        if len(rows) <= precision_recall.NEIGHBORS:
            raise DataError(
                f"Precision and recall need a reference of more than "
                f"{precision_recall.NEIGHBORS} images; it has {len(rows)}."
            )
        return precision_recall.precision_recall(self.samples.rows(), rows)

    def frechet_distance(self, feature: str) -> float:
        """Return the Frechet distance of one set of features.

        Raises:
          DataError: the reference's features have other dimensions.
        """
        samples = self.samples.gaussian(feature)
        reference = self.reference.gaussians[feature]
        _check_width(feature, len(samples[0]), len(reference[0]))
        return frechet.distance(samples, reference)


def _check_width(feature: str, width: int, reference_width: int) -> None:
    if width != reference_width:
        raise DataError(
            f"{feature} features of the reference must have {width} dimensions; got "
            f"{reference_width}. It was computed with another network; compute the "
            "reference again."
        )
