"""The pretrained feature networks of the field's metrics, loaded when first asked for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ul.core import batching
from ul.core import mesh as meshes
from ul.metrics.features import dinov2, i3d, inception, lpips, weights

MissingWeights = weights.MissingWeights

# Images a device at a time: 299x299 activations of Inception are what counts.
ROWS_A_DEVICE = 32


@dataclasses.dataclass(frozen=True)
class Network:
    """A feature network with its weights.

    fn(params, image) or (params, image, other): uint8 [N, H, W, 3] to arrays of N rows.
    file, digest (SHA-256): of the weights. resize: what it does to an image first.
    """

    fn: Callable[..., Any]
    params: Any
    file: str
    digest: str
    resize: str

    def on(self, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
        """`map(**images)` over host images of any number of rows, split over the mesh."""
        params = jax.device_put(self.params, meshes.replicated(mesh))
        compiled = jax.jit(self.fn)

        def run(**images: np.ndarray):
            return batching.map_rows(
                lambda **part: compiled(params, *part.values()),
                {name: coloured(image) for name, image in images.items()},
                batch_size=ROWS_A_DEVICE * mesh.size,
                mesh=mesh,
            )

        return run

    def protocol(self) -> dict[str, str]:
        """What a figure needs said of the network behind it."""
        return {"file": self.file, "sha256": self.digest, "resize": self.resize}


def coloured(image: np.ndarray) -> np.ndarray:
    """Grey uint8 [..., 1] repeated to three channels."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


# Name: function, module with the agreed interface, what it does to an image first.
KNOWN: Mapping[str, tuple[Callable[..., Any], Any, str]] = {
    "inception": (
        inception.features,
        inception,
        "299x299 bilinear of TensorFlow 1, neither antialiased nor half-pixel centred",
    ),
    "lpips": (lpips.distance, lpips, "none"),
    "dinov2": (dinov2.features, dinov2, "224x224 bicubic of floats, antialiased"),
    "i3d": (
        i3d.features,
        i3d,
        "224x224 bilinear of each frame, half-pixel centred, not antialiased",
    ),
}


class Networks:
    """Feature networks by name, from a directory of weights; None has none."""

    def __init__(self, weights_dir: str | None):
        self._dir = weights_dir
        self._loaded: dict[str, Network] = {}

    def get(self, name: str) -> Network:
        """The network.

        Raises:
          Missing: its weights are not there.
          DataError: they are damaged, or are not those of the manifest.
        """
        if name not in self._loaded:
            fn, module, resize = KNOWN[name]
            if self._dir is None:
                raise MissingWeights(
                    f"{module.FILE} is not here; give --weights_dir or set UL_WEIGHTS"
                )
            params = weights.load(self._dir, module)
            digest = weights.read_manifest(self._dir)[module.FILE]["sha256"]
            self._loaded[name] = Network(fn, params, module.FILE, digest, resize)
        return self._loaded[name]
