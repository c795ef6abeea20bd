"""DINOv2's parts without weights, and against two PyTorch implementations (oracle)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib import torch_states
from tests.lib.oracle import package
from ul.core.errors import DataError
from ul.metrics.features import dinov2

# Of PyTorch, for the default suite; an oracle test keeps them.
GOLDEN = [-0.116966, 0.174079, 1.77269, -1.19743, -0.97499, -0.0715874]
GOLDEN_POSITIONS = [4.27465, 21.5403, 29.964, 36.5719]

TINY = dinov2.Size(width=32, depth=3, heads=4, side=56)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def parameters(size, seed=0):
    """Random tensors of the file, so scaled that every part changes the features."""
    return torch_states.tensors(dinov2.shapes(size), seed)


def public(params, layout):
    """`params` under the names of a public state dict, Hugging Face's or the original's."""
    state = {}

    def put(name, value):
        value = np.asarray(value)
        if name == "cls" or name == "positions":
            value = value.reshape(1, -1, value.shape[-1])
        if name == "patch.kernel":
            value = value.transpose(3, 2, 0, 1)
        elif name.endswith("kernel"):
            value = value.T
        return value

    for name, names in dinov2._OUTSIDE.items():
        state[names[layout]] = put(name, params[name])
    for name, names in dinov2._BLOCK.items():
        for i, value in enumerate(params[f"blocks.{name}"]):
            sources = names[layout].split()
            for source, part in zip(
                sources, np.split(put(name, value), len(sources)), strict=True
            ):
                state[dinov2._PREFIX[layout].format(i) + source] = part
    return state


def test_size_of_vit_l():
    """The public 304,368,640, less the mask token, with 257 positions for 1370."""
    count = sum(np.prod(shape) for shape in dinov2.shapes().values())
    assert count == 304_368_640 - 1024 - (1370 - 257) * 1024


def test_vit_l_gives_1024_features_of_any_image():
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in dinov2.shapes().items()
    }
    image = jax.ShapeDtypeStruct((5, 30, 41, 3), jnp.uint8)
    out = jax.eval_shape(dinov2.features, params, image)
    assert out.shape == (5, 1024) and out.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(32, 32), (224, 224), (300, 411), (512, 256)])
def test_resizing_is_pils_bicubic(shape):
    image = images(2, *shape, 3)
    x = np.asarray(dinov2.preprocessed(jnp.asarray(image), 224))
    got = 255 * (x[1] * dinov2.STD + dinov2.MEAN)
    channels = [
        Image.fromarray(image[1, :, :, c].astype(np.float32)).resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    want = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    np.testing.assert_allclose(got, want, rtol=0, atol=0.02)


def test_features_are_per_image_and_see_everything():
    params, image = parameters(TINY), images(3, 40, 56, 3)
    f = jax.jit(lambda params, image: dinov2.features(params, image, TINY))
    got = f(params, image)
    assert got.shape == (3, 32)
    again = jnp.concatenate([f(params, image[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(got, again, rtol=0, atol=1e-5)
    for name, value in params.items():
        changed = f({**params, name: value + 0.1 * np.sign(value)}, image)
        moved = float(jnp.max(jnp.abs(changed - got)))
        assert moved > 1e-3, f"{name} moves the features by {moved} only"


def test_features_are_those_of_pytorch():
    image = jnp.asarray(images(1, 40, 56, 3))
    got = dinov2.features(parameters(TINY), image, TINY)
    np.testing.assert_allclose(got[0, :6], GOLDEN, rtol=1e-4, atol=1e-5)


def test_blocks_scaled_by_zero_leave_the_class_token():
    params = parameters(TINY)
    # So small that the norm's epsilon counts.
    params["cls"], params["positions"] = (
        0.01 * params["cls"],
        0.01 * params["positions"],
    )
    for name in ("blocks.scale1", "blocks.scale2"):
        params[name] = np.zeros_like(params[name])
    got = dinov2.features(params, jnp.asarray(images(1, 56, 56, 3)), TINY)
    token = params["cls"] + params["positions"][0]
    token = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
    want = token * params["norm.scale"] + params["norm.bias"]
    np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_products_run_in_full_precision():
    image = jnp.asarray(images(1, 56, 56, 3))
    program = jax.make_jaxpr(lambda p: dinov2.features(p, image, TINY))(
        parameters(TINY)
    )
    assert "HIGHEST" in str(program) and "precision=None" not in str(program)


@pytest.mark.parametrize("layout", [0, 1])
def test_both_public_layouts_are_read(layout):
    params = parameters(TINY)
    state = public(params, layout)
    got = dinov2.from_torch(state, TINY)
    assert got.keys() == dinov2.shapes(TINY).keys()
    for name, shape in dinov2.shapes(TINY).items():
        assert got[name].shape == shape and got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], params[name], err_msg=name)


def test_registers_and_missing_tensors_are_refused():
    state = public(parameters(TINY), 1)
    with pytest.raises(DataError, match="register tokens"):
        dinov2.from_torch({**state, "register_tokens": np.zeros((1, 4, 32))}, TINY)
    del state["blocks.2.ls1.gamma"]
    with pytest.raises(KeyError, match="blocks.2.ls1.gamma"):
        dinov2.from_torch(state, TINY)


def ramp():
    """Positions [1 + 37^2, 1] that grow unevenly."""
    return np.sqrt(np.arange(1 + 37**2, dtype=np.float32))[:, None]


def test_positions_are_resized_as_pytorch_does():
    got = dinov2.resized_positions(ramp(), 16)[1:].reshape(16, 16)
    np.testing.assert_allclose(np.diagonal(got)[::5], GOLDEN_POSITIONS, rtol=1e-5)


def test_positions_keep_the_class_and_constants():
    positions = np.full((1 + 37**2, 2), 3.0, np.float32)
    positions[0] = 7.0
    got = dinov2.resized_positions(positions, 16)
    assert got.shape == (257, 2) and got.dtype == np.float32
    np.testing.assert_allclose(got[0], 7.0)
    np.testing.assert_allclose(got[1:], 3.0, rtol=1e-6)
    assert dinov2.resized_positions(got, 16) is got


# Against PyTorch.


def torch_input(image, side):
    """PyTorch's own antialiased bicubic, then ImageNet's mean and deviation."""
    import torch

    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (dinov2.MEAN, dinov2.STD))
    return (x - mean) / std


def difference(got, want):
    """Largest, relative to the largest feature; printed, for a report."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    relative = float(np.abs(got - want).max() / np.abs(want).max())
    print(f"largest relative difference {relative:.2e}")
    return relative


@pytest.mark.oracle
def test_positions_are_those_of_the_original():
    """bicubic with scale_factor 16.1 / 37, as facebookresearch/dinov2 calls it."""
    torch = pytest.importorskip("torch")
    positions = np.random.default_rng(0).normal(size=(1 + 37**2, 8)).astype(np.float32)
    square = torch.from_numpy(positions[1:]).reshape(1, 37, 37, 8).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(
        square, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic"
    )
    assert want.shape[-2:] == (16, 16)
    got = dinov2.resized_positions(positions, 16)
    assert difference(got[1:].reshape(16, 16, 8), want[0].permute(1, 2, 0)) < 1e-5


@pytest.mark.oracle
def test_the_original_implementation():
    """The PyPI package dinov2 (facebookresearch's code), positions resized from 7x7."""
    torch = pytest.importorskip("torch")
    vits = pytest.importorskip("dinov2.models.vision_transformer")
    model = vits.DinoVisionTransformer(
        img_size=98,
        patch_size=14,
        embed_dim=TINY.width,
        depth=TINY.depth,
        num_heads=TINY.heads,
        init_values=1.0,
        block_chunks=0,
    )
    state = public(parameters(dataclasses.replace(TINY, side=98)), 1)
    lacks = model.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in state.items()},
        strict=False,
    )
    assert lacks.missing_keys == ["mask_token"] and not lacks.unexpected_keys
    image = images(4, 70, 45, 3)
    with torch.no_grad():
        want = model.eval()(torch_input(image, TINY.side))
    got = dinov2.features(dinov2.from_torch(state, TINY), jnp.asarray(image), TINY)
    assert difference(got, want) < 1e-4


def hugging_face(folder, params, size):
    """transformers' Dinov2Model, loaded from `params` in a file of the public layout."""
    transformers = package("transformers")
    from safetensors.numpy import save_file

    state = {k: np.ascontiguousarray(v) for k, v in public(params, 0).items()}
    state["embeddings.mask_token"] = np.zeros((1, size.width), np.float32)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.Dinov2Config(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        image_size=size.side,
        patch_size=size.patch,
        layer_norm_eps=1e-6,
    ).save_pretrained(folder)
    model = transformers.Dinov2Model.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    return model.eval(), state


@pytest.mark.oracle
@pytest.mark.parametrize("size, side", [(TINY, 56), (dinov2.VIT_L, 518)], ids=str)
def test_hugging_faces_implementation(size, side, tmp_path):
    """Its positions are exchanged for those at `size.side`: it resizes them in another way
    than the original, see `resized_positions`."""
    torch = pytest.importorskip("torch")
    public_size = dataclasses.replace(size, side=side)
    model, state = hugging_face(tmp_path, parameters(public_size), public_size)
    params = dinov2.from_torch(state, size)
    assert {k: v.shape for k, v in params.items()} == dinov2.shapes(size)

    model.embeddings.position_embeddings = torch.nn.Parameter(
        torch.from_numpy(params["positions"])[None]
    )
    image = images(2, 100, 130, 3)
    with torch.no_grad():
        want = model(torch_input(image, size.side)).pooler_output
    got = dinov2.features(params, jnp.asarray(image), size)
    assert difference(got, want) < 1e-4


@pytest.mark.oracle
def test_the_default_suite_compares_with_their_values(tmp_path):
    torch = pytest.importorskip("torch")
    model, _ = hugging_face(tmp_path, parameters(TINY), TINY)
    with torch.no_grad():
        want = model(torch_input(images(1, 40, 56, 3), TINY.side)).pooler_output[0, :6]
    print([float(f"{v:.6g}") for v in want])
    np.testing.assert_allclose(want, GOLDEN, rtol=1e-4)
    positions = torch.from_numpy(ramp()[1:]).reshape(1, 1, 37, 37)
    want = torch.nn.functional.interpolate(
        positions, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic"
    )[0, 0]
    print([float(f"{v:.6g}") for v in want.diagonal()[::5]])
    np.testing.assert_allclose(want.diagonal()[::5], GOLDEN_POSITIONS, rtol=1e-5)
