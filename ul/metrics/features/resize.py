"""The resizing of the published networks: TensorFlow 1's bilinear and PIL's bicubic.

FID's network needs the former. It differs from `jax.image.resize`: it has no antialiasing,
and pixel i of the result is read at i * in / out, not at the centers of pixels
(`align_corners=False`, before `half_pixel_centers`). CLIP needs the latter, which is
`jax.image.resize` rounded to 8 bits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, Float, UInt8, typechecked


def _neighbor_pixels(size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lower pixel, the upper pixel and the latter's weight for `out` positions."""
    # Float32 as in TensorFlow: at whole positions the lower pixel depends on the rounding.
    position = np.arange(out, dtype=np.float32) * np.float32(size / out)
    lower = position.astype(np.int32)
    return lower, np.minimum(lower + 1, size - 1), position - lower.astype(np.float32)


@typechecked
def bilinear_tf1(
    image: UInt8[Array, "N H W C"] | Float[Array, "N H W C"], height: int, width: int
) -> Float[Array, "N h w C"]:
    """Resize images to height x width by TensorFlow 1's bilinear, keeping their range."""
    x = image.astype(jnp.float32)
    left, right, weight = _neighbor_pixels(x.shape[2], width)
    a, b = x[:, :, left], x[:, :, right]
    x = a + (b - a) * weight[None, None, :, None]
    top, bottom, weight = _neighbor_pixels(x.shape[1], height)
    a, b = x[:, top], x[:, bottom]
    return a + (b - a) * weight[None, :, None, None]


@typechecked
def bicubic_pil(
    image: UInt8[Array, "N H W C"], height: int, width: int
) -> Float[Array, "N h w C"]:
    """Resize images to height x width by PIL's antialiased bicubic, in whole levels 0..255.

    PIL resizes 8-bit images along the width, then along the height, and rounds to whole
    levels after each. (Pillow 13 changed the order for tall images, PR 9549; published
    values are older.)
    """
    n, rows, columns, channels = image.shape
    x = image.astype(jnp.float32)
    if columns != width:
        x = _round_to_levels(jax.image.resize(x, (n, rows, width, channels), "cubic"))
    if rows != height:
        x = _round_to_levels(jax.image.resize(x, (n, height, width, channels), "cubic"))
    return x


def _round_to_levels(x: Array) -> Array:
    return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0)
