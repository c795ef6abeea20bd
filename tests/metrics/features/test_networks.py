"""Inception and LPIPS without PyTorch: sizes, and values that PyTorch computed."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import torch_states
from tests.lib.breaks import Break
from ul.core.errors import DataError
from ul.metrics.features import inception, lpips, resize, weights

GOLDENS = json.loads((Path(__file__).parent / "goldens.json").read_text())


@pytest.mark.parametrize(
    "pixels, out, expected",
    [
        ([0, 10, 20, 30], 3, [0.0, 40 / 3, 80 / 3]),  # read at 0, 4/3, 8/3
        ([0, 10], 5, [0.0, 4.0, 8.0, 10.0, 10.0]),  # the last pixel is repeated
        ([5, 9, 1, 7], 2, [5.0, 1.0]),  # every second pixel: no antialiasing
        ([3, 4, 8], 3, [3.0, 4.0, 8.0]),
        ([6], 3, [6.0, 6.0, 6.0]),
    ],
)
def test_resize_by_hand(pixels, out, expected):
    """In TensorFlow 1, pixel i of the result is read at i * in / out."""
    row = np.asarray(pixels, np.uint8)
    across = jnp.asarray(np.tile(row[None, None, :, None], (1, 2, 1, 1)))
    down = jnp.asarray(np.tile(row[None, :, None, None], (1, 1, 2, 1)))
    wide = resize.bilinear_tf1(across, 2, out)
    np.testing.assert_allclose(wide[0, 0, :, 0], expected, atol=1e-5)
    np.testing.assert_allclose(wide[0, 1, :, 0], expected, atol=1e-5)
    high = resize.bilinear_tf1(down, out, 2)
    np.testing.assert_allclose(high[0, :, 1, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "module, state, size",
    # torch-fidelity's Inception has 23,850,960 parameters: 17,216 scales are folded into the
    # kernels and the 1,008 biases of the classes are left out. LPIPS has VGG16's
    # convolutions and 1,472 weights of the heads.
    [
        (inception, torch_states.inception_state, 23_850_960 - 17_216 - 1_008),
        (lpips, torch_states.lpips_state, 14_714_688 + 1_472),
    ],
    ids=["inception", "lpips"],
)
def test_converted_tensors_fit(module, state, size):
    assert sum(np.prod(s) for s in module.shapes().values()) == size
    weights.check_arrays("random", module.from_torch(state()), module)
    incomplete = state()
    del incomplete[next(k for k in incomplete if k.endswith("weight"))]
    with pytest.raises(KeyError):
        module.from_torch(incomplete)


def test_inception_equals_pytorch():
    """The golden values are those of torch-fidelity's network (make oracle)."""
    params = inception.from_torch(torch_states.inception_state())
    image = torch_states.make_images(0, *GOLDENS["inception"]["images"])
    out = jax.jit(inception.features)(params, image)
    shapes = {k: v.shape for k, v in out.items()}
    assert shapes == {"pool": (1, 2048), "spatial": (1, 2023), "probs": (1, 1008)}
    np.testing.assert_allclose(np.sum(out["probs"], 1), 1.0, rtol=1e-5)
    for name in shapes:
        expected = GOLDENS["inception"][name]
        actual = torch_states.excerpt(out[name])
        scale = np.sqrt(np.mean(np.square(expected)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * scale)


def test_lpips_equals_pytorch():
    """The golden value is that of the lpips package (make oracle)."""
    params = lpips.from_torch(torch_states.lpips_state())
    image, other = (
        torch_states.make_images(s, *GOLDENS["lpips"]["images"]) for s in (3, 4)
    )
    pairs = np.concatenate([image, other, image]), np.concatenate([other, image, image])
    forward, backward, equal = jax.jit(lpips.distance)(params, *pairs)
    np.testing.assert_allclose(forward, GOLDENS["lpips"]["distance"][0], rtol=1e-4)
    np.testing.assert_allclose(backward, forward, rtol=1e-6)
    assert equal == 0.0


def test_lpips_refuses_small_images():
    image = np.zeros((1, 16, 15, 3), np.uint8)
    with pytest.raises(DataError, match="at least 16 pixels; got 16x15"):
        jax.eval_shape(lpips.distance, {}, image, image)


def test_torchscript_names():
    """Some names in NVIDIA's file, which follow the graph's: mixed_<n>/tower_<n>/conv_<n>."""
    names = inception.torchscript_names()
    assert len(set(names.values())) == len(names) == 94
    assert {
        "Conv2d_4a_3x3": "layers.conv_4",
        "Mixed_5b.branch5x5_2": "layers.mixed.tower.conv_1",
        "Mixed_6a.branch3x3dbl_3": "layers.mixed_3.tower.conv_2",
        "Mixed_6d.branch1x1": "layers.mixed_6.conv",
        "Mixed_6d.branch_pool": "layers.mixed_6.tower_2.conv",
        "Mixed_7a.branch7x7x3_4": "layers.mixed_8.tower_1.conv_3",
        "Mixed_7b.branch3x3_2b": "layers.mixed_9.tower_mixed_conv_1",
        "Mixed_7c.branch3x3dbl_3a": "layers.mixed_10.tower_1_mixed_conv",
        "Mixed_7c.branch_pool": "layers.mixed_10.tower_2_conv",
    }.items() <= names.items()


BREAKS = (
    Break(
        "Inception's average pools that count padding",
        "ul/metrics/features/inception.py",
        "return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, *window)",
        "return total / 9.0",
        "test_inception_equals_pytorch",
    ),
    Break(
        "TensorFlow 1's resizing with half-pixel centers",
        "ul/metrics/features/resize.py",
        "np.arange(out, dtype=np.float32) * np.float32(size / out)",
        "np.maximum((np.arange(out, dtype=np.float32) + 0.5) * size / out - 0.5, 0)",
        "test_resize_by_hand",
    ),
    Break(
        "LPIPS of channels that are not normalized",
        "ul/metrics/features/lpips.py",
        "jnp.split(_normalize(activation), 2)",
        "jnp.split(activation, 2)",
        "test_lpips_equals_pytorch",
    ),
)
