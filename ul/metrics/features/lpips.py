"""LPIPS v0.1 with VGG16: a distance of two images (Zhang et al. 2018, arXiv 1801.03924).

Public files that `from_torch` reads together: torchvision's vgg16-397923af.pth, of which
the convolutions are used, and the heads from lpips/weights/v0.1/vgg.pth of the `lpips`
package (github.com/richzhang/PerceptualSimilarity, BSD-2-Clause).
"""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ul.core import arrays
from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked
from ul.metrics.features.weights import Params

FILE = "lpips_vgg.safetensors"
# VGG16: widths of the convolutions of each stage. Between stages there is a 2x2 max pool;
# each stage's output has a head.
STAGE_WIDTHS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
MIN_SIDE = 16  # below this the four pools leave no pixel
# Shift and scale of LPIPS's scaling layer, for values in -1..1: ImageNet's mean and standard
# deviation.
_SHIFT = np.asarray([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.asarray([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10


def _conv_layers() -> Iterator[list[tuple[str, int, int]]]:
    """Yield the convolutions of each stage: torchvision's name, channels in, channels out."""
    index, in_channels = 0, 3
    for widths in STAGE_WIDTHS:
        convs = []
        for width in widths:
            convs.append((f"features.{index}", in_channels, width))
            index, in_channels = index + 2, width  # torchvision counts the ReLU
        yield convs
        index += 1  # torchvision counts the pool


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file.

    Kernels are [3, 3, in, out]; biases and heads are [out].
    """
    tensors: dict[str, tuple[int, ...]] = {}
    for stage, convs in enumerate(_conv_layers()):
        for name, in_channels, width in convs:
            tensors[f"{name}.weight"] = (3, 3, in_channels, width)
            tensors[f"{name}.bias"] = (width,)
        tensors[f"lin{stage}"] = (width,)
    return tensors


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the file's tensors from the states of both public files, merged.

    Raises:
      KeyError: the state lacks a tensor.
    """
    out = {}
    for stage, convs in enumerate(_conv_layers()):
        for name, _, _ in convs:
            out[f"{name}.weight"] = state[f"{name}.weight"].transpose(2, 3, 1, 0)
            out[f"{name}.bias"] = state[f"{name}.bias"]
        out[f"lin{stage}"] = state[f"lin{stage}.model.1.weight"].reshape(-1)
    return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}


def stage_activations(params: Params, x: Array) -> Iterator[Array]:
    """Yield the output of each stage, for x [N, H, W, 3] after the scaling layer."""
    for stage, convs in enumerate(_conv_layers()):
        if stage:
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        for name, _, _ in convs:
            y = jax.lax.conv_general_dilated(
                x,
                jnp.asarray(params[f"{name}.weight"]),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            x = jax.nn.relu(y + params[f"{name}.bias"][None, None, None])
        yield x


def _normalize(x: Array) -> Array:
    """Scale the channels at each position to length 1."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True)) + _EPSILON)


@typechecked
def distance(
    params: Params, image: UInt8[Array, "N H W 3"], other: UInt8[Array, "N H W 3"]
) -> Float[Array, " N"]:
    """Return the LPIPS distance [N] of each pair of images.

    It is the squared difference of normalized channels, weighted by the heads, averaged
    over positions and summed over the five stages.

    Raises:
      DataError: a side of the images is shorter than 16 pixels.
    """
    if min(image.shape[1:3]) < MIN_SIDE:
        size = f"{image.shape[1]}x{image.shape[2]}"
        raise DataError(f"LPIPS needs sides of at least {MIN_SIDE} pixels; got {size}.")
    x = arrays.scale_pixels(jnp.concatenate([image, other]))
    x = (x - _SHIFT[None, None, None]) / _SCALE[None, None, None]
    total = jnp.zeros(len(image))
    for stage, activation in enumerate(stage_activations(params, x)):
        a, b = jnp.split(_normalize(activation), 2)
        head = params[f"lin{stage}"][None, None, None]
        total += jnp.mean(jnp.sum(head * jnp.square(a - b), -1), axis=(1, 2))
    return total
