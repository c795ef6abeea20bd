import jax.numpy as jnp
import numpy as np

from ul.core import arrays


def test_every_pixel_value_survives_the_round_trip():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = arrays.to_unit(jnp.asarray(image))
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(arrays.to_uint8(x), image)


def test_to_uint8_clips():
    x = jnp.asarray([-1.5, 1.5]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(arrays.to_uint8(x).reshape(-1), [0, 255])


def test_depth_to_space_undoes_space_to_depth():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    deep = arrays.space_to_depth(x, 2)
    assert deep.shape == (2, 2, 3, 12)
    # One output pixel holds one 2x2 square.
    np.testing.assert_array_equal(np.sort(deep[0, 0, 0]), np.sort(x[0, :2, :2].ravel()))
    np.testing.assert_array_equal(arrays.depth_to_space(deep, 2), x)


def test_padding_repeats_the_last_row_and_masks_it():
    padded = arrays.pad_rows({"label": np.asarray([3, 5])}, 4)
    np.testing.assert_array_equal(padded["label"], [3, 5, 5, 5])
    np.testing.assert_array_equal(padded["mask"], [1, 1, 0, 0])
