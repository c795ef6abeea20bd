"""LPIPS v0.1 with VGG16: a distance of two images (Zhang et al. 2018, arXiv 1801.03924).

Public files that `from_torch` reads together: torchvision's vgg16-397923af.pth, of which
the convolutions are used, and the heads in lpips/weights/v0.1/vgg.pth of the `lpips`
package (github.com/richzhang/PerceptualSimilarity, BSD-2-Clause).
"""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ul.core import arrays
from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked

FILE = "lpips_vgg.safetensors"
# VGG16: convolutions per stage; 2x2 max pools between stages; a head on each stage's end.
STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
MIN_SIDE = 16  # four pools
# The scaling layer, for channels in -1..1: ImageNet's mean and deviation for 0..1.
_SHIFT = np.asarray([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.asarray([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10


def _stages() -> Iterator[list[tuple[str, int, int]]]:
    """Of each stage: the convolutions' names in torchvision's VGG16, channels in and out."""
    index, reads = 0, 3
    for stage in STAGES:
        convs = []
        for width in stage:
            convs.append((f"features.{index}", reads, width))
            index, reads = index + 2, width  # a ReLU lies between
        yield convs
        index += 1  # the pool


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the file: kernels [3, 3, in, out], biases and heads [out]."""
    tensors: dict[str, tuple[int, ...]] = {}
    for stage, convs in enumerate(_stages()):
        for name, reads, width in convs:
            tensors[f"{name}.weight"] = (3, 3, reads, width)
            tensors[f"{name}.bias"] = (width,)
        tensors[f"lin{stage}"] = (width,)
    return tensors


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file's tensors from the states of both public files, merged.

    Raises:
      KeyError: the state lacks a tensor.
    """
    out = {}
    for stage, convs in enumerate(_stages()):
        for name, _, _ in convs:
            out[f"{name}.weight"] = state[f"{name}.weight"].transpose(2, 3, 1, 0)
            out[f"{name}.bias"] = state[f"{name}.bias"]
        out[f"lin{stage}"] = state[f"lin{stage}.model.1.weight"].reshape(-1)
    return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}


def stages(params: Mapping, x: Array) -> Iterator[Array]:
    """The activations at each stage's end; x [N, H, W, 3] after the scaling layer."""
    for stage, convs in enumerate(_stages()):
        if stage:
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        for name, _, _ in convs:
            y = jax.lax.conv_general_dilated(
                x,
                params[f"{name}.weight"],
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            x = jax.nn.relu(y + params[f"{name}.bias"][None, None, None])
        yield x


def _unit(x: Array) -> Array:
    """Each position's channels at length 1."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True)) + _EPSILON)


@typechecked
def distance(
    params: Mapping, image: UInt8[Array, "N H W 3"], other: UInt8[Array, "N H W 3"]
) -> Float[Array, "N"]:
    """Of each pair, 0..255: squared differences of unit channels, weighted by the heads,
    averaged over positions, summed over the five stages.

    Raises:
      DataError: the images are smaller than 16 pixels.
    """
    if min(image.shape[1:3]) < MIN_SIDE:
        size = f"{image.shape[1]}x{image.shape[2]}"
        raise DataError(f"LPIPS needs sides of at least {MIN_SIDE} pixels, not {size}")
    x = arrays.to_unit(jnp.concatenate([image, other]))
    x = (x - _SHIFT[None, None, None]) / _SCALE[None, None, None]
    total = jnp.zeros(len(image))
    for stage, activation in enumerate(stages(params, x)):
        a, b = jnp.split(_unit(activation), 2)
        head = params[f"lin{stage}"][None, None, None]
        total += jnp.mean(jnp.sum(head * jnp.square(a - b), -1), axis=(1, 2))
    return total
