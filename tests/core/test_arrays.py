"""Pixel scaling, space-to-depth and padding of batches."""

import jax.numpy as jnp
import numpy as np

from ul.core import arrays


def test_to_uint8_inverts_scale_pixels_for_every_pixel_value():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = arrays.scale_pixels(jnp.asarray(image))
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(arrays.to_uint8(x), image)


def test_to_uint8_clips():
    x = jnp.asarray([-1.5, 1.5]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(arrays.to_uint8(x).reshape(-1), [0, 255])


def test_depth_to_space_inverts_space_to_depth():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    cells = arrays.space_to_depth(x, 2)
    assert cells.shape == (2, 2, 3, 12)
    # One cell holds the values of one 2x2 square.
    square = x[0, :2, :2].ravel()
    np.testing.assert_array_equal(np.sort(cells[0, 0, 0]), np.sort(square))
    np.testing.assert_array_equal(arrays.depth_to_space(cells, 2), x)


def test_padding_repeats_the_last_row_and_masks_it():
    padded = arrays.pad_rows({"label": np.asarray([3, 5])}, 4)
    np.testing.assert_array_equal(padded["label"], [3, 5, 5, 5])
    np.testing.assert_array_equal(padded["mask"], [1, 1, 0, 0])
