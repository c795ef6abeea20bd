"""Feature networks with random weights and the interface of the real ones."""

import jax
import jax.numpy as jnp
import numpy as np

from ul.metrics.extractors import FeatureNetwork, MissingWeights

WIDTH = 6


def _flat(image):
    return image.reshape(len(image), -1).astype(jnp.float32) / 255.0


def inception(params, image):
    """Return random projections in place of Inception's features and probabilities."""
    x = jnp.matmul(_flat(image), params["w"], precision="highest")
    probs = jax.nn.softmax(3.0 * x[:, :5])
    return {"pool": x[:, :WIDTH], "spatial": x[:, WIDTH:], "probs": probs}


def dinov2(params, image):
    """Return random projections in place of DINOv2's features."""
    return jnp.matmul(_flat(image), params["w"], precision="highest")[:, :3]


def lpips(params, image, other):
    """Return the mean absolute difference in place of the LPIPS distance."""
    return jnp.mean(jnp.abs(_flat(image) - _flat(other)), axis=1)


class FakeNetworks:
    """Networks for images [H, W, C] of `shape`; those not in `only` are missing."""

    def __init__(self, shape, only=("inception", "dinov2", "lpips"), digest="d1"):
        size = shape[0] * shape[1] * 3
        w = np.random.default_rng(0).normal(size=(size, 2 * WIDTH)) / np.sqrt(size)
        self._params = {"w": w.astype(np.float32)}
        self._only, self._digest = only, digest

    def get(self, name):
        """Return the named network; raise MissingWeights if it is not in `only`."""
        if name not in self._only:
            raise MissingWeights(f"{name}.safetensors is missing")
        fn = {"inception": inception, "dinov2": dinov2, "lpips": lpips}[name]
        file = f"{name}.safetensors"
        return FeatureNetwork(fn, self._params, file, self._digest, "none")
