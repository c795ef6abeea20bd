"""DINOv2 with random weights, and against two PyTorch implementations (oracle)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib import torch_states
from tests.lib.breaks import Break
from tests.lib.oracle import import_package
from ul.core.errors import DataError
from ul.metrics.features import dinov2

# Values of PyTorch; an oracle test below checks them.
GOLDEN = [-0.116966, 0.174079, 1.77269, -1.19743, -0.97499, -0.0715874]
GOLDEN_POSITIONS = [4.27465, 21.5403, 29.964, 36.5719]

TINY = dinov2.VitSizes(width=32, depth=3, heads=4, side=56)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def random_parameters(sizes, seed=0):
    """Return random tensors of the file, scaled so that each changes the features."""
    return torch_states.random_tensors(dinov2.shapes(sizes), seed)


def public_state(params, layout):
    """Return `params` as a public state dict: layout 0 is Hugging Face's, 1 the original's."""
    state = {}

    def to_torch(name, value):
        value = np.asarray(value)
        if name == "cls" or name == "positions":
            value = value.reshape(1, -1, value.shape[-1])
        if name == "patch.kernel":
            value = value.transpose(3, 2, 0, 1)
        elif name.endswith("kernel"):
            value = value.T
        return value

    for name, names in dinov2._OUTSIDE_BLOCKS.items():
        state[names[layout]] = to_torch(name, params[name])
    for name, names in dinov2._BLOCK.items():
        for i, value in enumerate(params[f"blocks.{name}"]):
            sources = names[layout].split()
            for source, part in zip(
                sources, np.split(to_torch(name, value), len(sources)), strict=True
            ):
                state[dinov2._BLOCK_PREFIX[layout].format(i) + source] = part
    return state


def test_size_of_vit_l():
    """The public 304,368,640 without the mask token, and with 257 positions for 1370."""
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
def test_resizing_equals_pils_bicubic(shape):
    image = images(2, *shape, 3)
    x = np.asarray(dinov2.preprocess(jnp.asarray(image), 224))
    actual = 255 * (x[1] * dinov2.STD + dinov2.MEAN)
    channels = [
        Image.fromarray(image[1, :, :, c].astype(np.float32)).resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    expected = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.02)


def test_features_are_per_image_and_depend_on_every_tensor():
    params, image = random_parameters(TINY), images(3, 40, 56, 3)
    f = jax.jit(lambda params, image: dinov2.features(params, image, TINY))
    actual = f(params, image)
    assert actual.shape == (3, 32)
    one_by_one = jnp.concatenate([f(params, image[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(actual, one_by_one, rtol=0, atol=1e-5)
    for name, value in params.items():
        changed = f({**params, name: value + 0.1 * np.sign(value)}, image)
        effect = float(jnp.max(jnp.abs(changed - actual)))
        assert effect > 1e-3, f"{name} changes the features by {effect} only"


def test_features_are_those_of_pytorch():
    image = jnp.asarray(images(1, 40, 56, 3))
    actual = dinov2.features(random_parameters(TINY), image, TINY)
    np.testing.assert_allclose(actual[0, :6], GOLDEN, rtol=1e-4, atol=1e-5)


def test_blocks_scaled_by_zero_leave_the_class_token():
    params = random_parameters(TINY)
    # The token is so small that the norm's epsilon has an effect.
    params["cls"], params["positions"] = (
        0.01 * params["cls"],
        0.01 * params["positions"],
    )
    for name in ("blocks.scale1", "blocks.scale2"):
        params[name] = np.zeros_like(params[name])
    actual = dinov2.features(params, jnp.asarray(images(1, 56, 56, 3)), TINY)
    token = params["cls"] + params["positions"][0]
    token = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
    expected = token * params["norm.scale"] + params["norm.bias"]
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_products_run_in_full_precision():
    image = jnp.asarray(images(1, 56, 56, 3))
    program = jax.make_jaxpr(lambda p: dinov2.features(p, image, TINY))(
        random_parameters(TINY)
    )
    assert "HIGHEST" in str(program) and "precision=None" not in str(program)


@pytest.mark.parametrize("layout", [0, 1])
def test_both_public_layouts_are_read(layout):
    params = random_parameters(TINY)
    state = public_state(params, layout)
    actual = dinov2.from_torch(state, TINY)
    assert actual.keys() == dinov2.shapes(TINY).keys()
    for name, shape in dinov2.shapes(TINY).items():
        assert actual[name].shape == shape and actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], params[name], err_msg=name)


def test_registers_and_missing_tensors_are_refused():
    state = public_state(random_parameters(TINY), 1)
    with pytest.raises(DataError, match="register tokens"):
        dinov2.from_torch({**state, "register_tokens": np.zeros((1, 4, 32))}, TINY)
    del state["blocks.2.ls1.gamma"]
    with pytest.raises(KeyError, match="blocks.2.ls1.gamma"):
        dinov2.from_torch(state, TINY)


def uneven_ramp():
    """Return positions [1 + 37^2, 1] that grow unevenly."""
    return np.sqrt(np.arange(1 + 37**2, dtype=np.float32))[:, None]


def test_resized_positions_equal_those_of_pytorch():
    actual = dinov2.resize_positions(uneven_ramp(), 16)[1:].reshape(16, 16)
    np.testing.assert_allclose(np.diagonal(actual)[::5], GOLDEN_POSITIONS, rtol=1e-5)


def test_resizing_keeps_the_class_position_and_constants():
    positions = np.full((1 + 37**2, 2), 3.0, np.float32)
    positions[0] = 7.0
    actual = dinov2.resize_positions(positions, 16)
    assert actual.shape == (257, 2) and actual.dtype == np.float32
    np.testing.assert_allclose(actual[0], 7.0)
    np.testing.assert_allclose(actual[1:], 3.0, rtol=1e-6)
    assert dinov2.resize_positions(actual, 16) is actual


# Comparisons with PyTorch.


def torch_input(image, side):
    """Resize with PyTorch's antialiased bicubic and normalize as for ImageNet."""
    import torch

    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (dinov2.MEAN, dinov2.STD))
    return (x - mean) / std


def relative_difference(actual, expected):
    """Return and print the largest difference, relative to the largest feature."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    relative = float(np.abs(actual - expected).max() / np.abs(expected).max())
    print(f"largest relative difference {relative:.2e}")
    return relative


@pytest.mark.oracle
def test_positions_are_those_of_the_original():
    """Bicubic with scale_factor 16.1 / 37, as facebookresearch/dinov2 calls it."""
    torch = pytest.importorskip("torch")
    positions = np.random.default_rng(0).normal(size=(1 + 37**2, 8)).astype(np.float32)
    square = torch.from_numpy(positions[1:]).reshape(1, 37, 37, 8).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        square, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic"
    )
    assert expected.shape[-2:] == (16, 16)
    actual = dinov2.resize_positions(positions, 16)
    assert (
        relative_difference(actual[1:].reshape(16, 16, 8), expected[0].permute(1, 2, 0))
        < 1e-5
    )


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
    state = public_state(random_parameters(dataclasses.replace(TINY, side=98)), 1)
    keys = model.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in state.items()},
        strict=False,
    )
    assert keys.missing_keys == ["mask_token"] and not keys.unexpected_keys
    image = images(4, 70, 45, 3)
    with torch.no_grad():
        expected = model.eval()(torch_input(image, TINY.side))
    actual = dinov2.features(dinov2.from_torch(state, TINY), jnp.asarray(image), TINY)
    assert relative_difference(actual, expected) < 1e-4


def load_hugging_face(folder, params, sizes):
    """Return a Dinov2Model of transformers, loaded from a file of `params`, and its state."""
    transformers = import_package("transformers")
    from safetensors.numpy import save_file

    state = {k: np.ascontiguousarray(v) for k, v in public_state(params, 0).items()}
    state["embeddings.mask_token"] = np.zeros((1, sizes.width), np.float32)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.Dinov2Config(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        image_size=sizes.side,
        patch_size=sizes.patch,
        layer_norm_eps=1e-6,
    ).save_pretrained(folder)
    model = transformers.Dinov2Model.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    return model.eval(), state


@pytest.mark.oracle
@pytest.mark.parametrize("sizes, side", [(TINY, 56), (dinov2.VIT_L, 518)], ids=str)
def test_hugging_faces_implementation(sizes, side, tmp_path):
    """Its positions are exchanged for those at `sizes.side`: it resizes them in another way
    than the original, see `resized_positions`."""
    torch = pytest.importorskip("torch")
    public_sizes = dataclasses.replace(sizes, side=side)
    model, state = load_hugging_face(
        tmp_path, random_parameters(public_sizes), public_sizes
    )
    params = dinov2.from_torch(state, sizes)
    assert {k: v.shape for k, v in params.items()} == dinov2.shapes(sizes)

    model.embeddings.position_embeddings = torch.nn.Parameter(
        torch.from_numpy(params["positions"])[None]
    )
    image = images(2, 100, 130, 3)
    with torch.no_grad():
        expected = model(torch_input(image, sizes.side)).pooler_output
    actual = dinov2.features(params, jnp.asarray(image), sizes)
    assert relative_difference(actual, expected) < 1e-4


@pytest.mark.oracle
def test_the_golden_values_of_the_default_suite(tmp_path):
    torch = pytest.importorskip("torch")
    model, _ = load_hugging_face(tmp_path, random_parameters(TINY), TINY)
    with torch.no_grad():
        expected = model(torch_input(images(1, 40, 56, 3), TINY.side)).pooler_output[
            0, :6
        ]
    print([float(f"{v:.6g}") for v in expected])
    np.testing.assert_allclose(expected, GOLDEN, rtol=1e-4)
    positions = torch.from_numpy(uneven_ramp()[1:]).reshape(1, 1, 37, 37)
    expected = torch.nn.functional.interpolate(
        positions, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic"
    )[0, 0]
    print([float(f"{v:.6g}") for v in expected.diagonal()[::5]])
    np.testing.assert_allclose(expected.diagonal()[::5], GOLDEN_POSITIONS, rtol=1e-5)


BREAKS = (
    Break(
        "DINOv2 with keys for queries",
        "ul/metrics/features/dinov2.py",
        "q, k, v = jnp.moveaxis",
        "k, q, v = jnp.moveaxis",
        "test_features_are_those_of_pytorch",
    ),
    Break(
        "DINOv2's images resized without antialiasing",
        "ul/metrics/features/dinov2.py",
        "antialias=True",
        "antialias=False",
        "test_resizing_equals_pils_bicubic",
    ),
)
