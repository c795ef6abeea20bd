"""The pretrained feature networks of the metrics, each loaded when it is first needed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ul.core import batching
from ul.core import mesh as meshes
from ul.metrics.features import dinov2, i3d, inception, lpips, weights

MissingWeights = weights.MissingWeights

# Images per device in one call. The 299x299 activations of Inception limit it.
ROWS_PER_DEVICE = 32


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A feature network with its weights.

    function(params, image) or function(params, image, other): uint8 [N, H, W, 3] to
    arrays of N rows. file and digest (SHA-256) are those of the weights. resize says how
    the network resizes an image before its first layer.
    """

    function: Callable[..., Any]
    params: Any
    file: str
    digest: str
    resize: str

    def on_mesh(self, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
        """Return `apply(**images)` of host images, any number of rows, split over the mesh."""
        params = jax.device_put(self.params, meshes.replicated(mesh))
        compiled = jax.jit(self.function)

        def apply(**images: np.ndarray):
            return batching.map_rows(
                lambda **batch: compiled(params, *batch.values()),
                {name: to_rgb(image) for name, image in images.items()},
                batch_size=ROWS_PER_DEVICE * mesh.size,
                mesh=mesh,
            )

        return apply

    def widths(self, shape: tuple[int, ...]) -> dict[str | None, int]:
        """Return the number of features by part, for images [*shape]; nothing is computed.

        The part of a network with one output is None.
        """
        image = jax.ShapeDtypeStruct((1, *shape[:-1], 3), np.uint8)
        output = jax.eval_shape(self.function, self.params, image)
        parts = output if isinstance(output, Mapping) else {None: output}
        return {part: features.shape[-1] for part, features in parts.items()}

    def protocol(self) -> dict[str, str]:
        """Return what a reader must know about the network behind a number."""
        return {"file": self.file, "sha256": self.digest, "resize": self.resize}


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Repeat the channel of gray images [..., 1] three times; return others unchanged."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


class FeatureNetworkSource(NamedTuple):
    """The function of a network, its module (see features/weights.py), and its resizing."""

    function: Callable[..., Any]
    module: Any
    resize: str


# The texts of `resize` are compared with those in reference files: do not reword them.
FEATURE_NETWORKS: Mapping[str, FeatureNetworkSource] = {
    "inception": FeatureNetworkSource(
        inception.features,
        inception,
        "299x299 bilinear of TensorFlow 1, neither antialiased nor half-pixel centred",
    ),
    "lpips": FeatureNetworkSource(lpips.distance, lpips, "none"),
    "dinov2": FeatureNetworkSource(
        dinov2.features, dinov2, "224x224 bicubic of floats, antialiased"
    ),
    "i3d": FeatureNetworkSource(
        i3d.features,
        i3d,
        "224x224 bilinear of each frame, half-pixel centred, not antialiased",
    ),
}


class FeatureNetworks:
    """Feature networks by name from a directory of weights; without one, all are missing."""

    def __init__(self, weights_dir: str | None):
        self._weights_dir = weights_dir
        self._loaded: dict[str, FeatureNetwork] = {}

    def get(self, name: str) -> FeatureNetwork:
        """Return the network.

        Raises:
          MissingWeights: its file of weights does not exist.
          DataError: the file is damaged or differs from the manifest.
        """
        if name not in self._loaded:
            function, module, resize = FEATURE_NETWORKS[name]
            if self._weights_dir is None:
                raise MissingWeights(
                    f"{module.FILE} must be in a directory of weights; none was passed. "
                    f"Create it once (python -m ul convert --help), then pass "
                    "--weights_dir or set UL_WEIGHTS."
                )
            params = weights.load(self._weights_dir, module)
            digest = weights.read_manifest(self._weights_dir)[module.FILE]["sha256"]
            self._loaded[name] = FeatureNetwork(
                function, params, module.FILE, digest, resize
            )
        return self._loaded[name]
