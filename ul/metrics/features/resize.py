"""Resizing as the published networks had it: TensorFlow 1's bilinear, PIL's bicubic.

FID's network: not `jax.image.resize`, for there is no antialiasing, and pixel i of the
result is read at i * in / out, not at the centres of pixels (`align_corners=False`, before
`half_pixel_centers`). CLIP's: `jax.image.resize`, but in 8 bits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, Float, UInt8, typechecked


def _neighbours(size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `out` places: the pixel below, the one above, the weight of the latter."""
    # In float32, as there: at whole places the pixel below depends on the rounding.
    place = np.arange(out, dtype=np.float32) * np.float32(size / out)
    below = place.astype(np.int32)
    return below, np.minimum(below + 1, size - 1), place - below.astype(np.float32)


@typechecked
def bilinear_tf1(
    image: UInt8[Array, "N H W C"] | Float[Array, "N H W C"], height: int, width: int
) -> Float[Array, "N h w C"]:
    """The images as float32 at height x width, in their own range."""
    x = image.astype(jnp.float32)
    left, right, weight = _neighbours(x.shape[2], width)
    a, b = x[:, :, left], x[:, :, right]
    x = a + (b - a) * weight[None, None, :, None]
    top, bottom, weight = _neighbours(x.shape[1], height)
    a, b = x[:, top], x[:, bottom]
    return a + (b - a) * weight[None, :, None, None]


@typechecked
def bicubic_pil(
    image: UInt8[Array, "N H W C"], height: int, width: int
) -> Float[Array, "N h w C"]:
    """The images at height x width, in whole levels 0..255, antialiased.

    PIL resizes 8-bit images along the width, then along the height, and has whole levels
    after each. (Pillow 13 changed the order for tall images, PR 9549; published figures are
    older.)
    """
    n, rows, columns, channels = image.shape
    x = image.astype(jnp.float32)
    if columns != width:
        x = _levels(jax.image.resize(x, (n, rows, width, channels), "cubic"))
    if rows != height:
        x = _levels(jax.image.resize(x, (n, height, width, channels), "cubic"))
    return x


def _levels(x: Array) -> Array:
    return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0)
