"""The KL autoencoder beside the diffusers package's, on random weights."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.importing import autoencoder_weights
from ul.models.kl_autoencoder import KlAutoencoderSizes, KlDecoder, KlEncoder, Resampler

F32 = jnp.dtype("float32")
# Stable Diffusion 1 and 2; and small, as Stable Diffusion 3 has it, wide images.
FULL = (
    KlAutoencoderSizes((128, 256, 512, 512), 2, 4, 32, True, True, True),
    (1, 64, 64, 3),
)
SMALL = KlAutoencoderSizes((32, 64, 96), 1, 16, 16, True, False, False), (2, 24, 40, 3)
PLAIN = KlAutoencoderSizes((16, 32), 1, 4, 8, False, False, True), (1, 16, 16, 3)


@pytest.fixture
def theirs(monkeypatch):
    """`(sizes) -> their module` in float32, all of its weights random."""
    torch = pytest.importorskip("torch")
    # Diffusers imports these where they are; the autoencoder needs neither.
    for package in ("transformers", "torchvision"):
        monkeypatch.setitem(sys.modules, package, None)
    pytest.importorskip("diffusers")
    package = importlib.import_module("diffusers.models.autoencoders.autoencoder_kl")

    def make(sizes):
        torch.manual_seed(0)
        levels = len(sizes.channels)
        made = package.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=sizes.channels,
            layers_per_block=sizes.blocks,
            latent_channels=sizes.latent_channels,
            norm_num_groups=sizes.groups,
            mid_block_add_attention=sizes.attention,
            use_quant_conv=sizes.quant_conv,
            use_post_quant_conv=sizes.post_quant_conv,
        ).eval()
        for name, parameter in made.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros at first
                torch.nn.init.normal_(parameter, float("norm" in name), 0.3)
        return made

    return make


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("sizes", "shape"), [FULL, SMALL, PLAIN])
def test_it_agrees_with_diffusers(theirs, sizes, shape):
    import torch

    other = theirs(sizes)
    tensors = {k: v.numpy() for k, v in other.state_dict().items()}
    encoder, decoder = KlEncoder(sizes, F32), KlDecoder(sizes, 3, F32)
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    z_shape = (shape[0], shape[1] // sizes.down, shape[2] // sizes.down)
    z = rng.normal(size=(*z_shape, sizes.latent_channels)).astype(np.float32)
    x, z = jnp.asarray(x), jnp.asarray(z)
    key = jax.random.key(0)
    shapes = {
        "encoder": jax.eval_shape(encoder.init, key, x)["params"],
        "decoder": jax.eval_shape(decoder.init, key, z)["params"],
    }
    params = autoencoder_weights.convert_to_params(tensors, shapes, len(sizes.channels))

    def nchw(array):
        return torch.from_numpy(np.array(array).transpose(0, 3, 1, 2).copy())

    with torch.no_grad():
        wanted = (
            other.encode(nchw(x)).latent_dist.mean,
            other.decode(nchw(z)).sample,
        )
    found = (
        jax.jit(encoder.apply)({"params": params["encoder"]}, x),
        jax.jit(decoder.apply)({"params": params["decoder"]}, z),
    )
    for ours, reference in zip(found, wanted, strict=True):
        reference = reference.numpy().transpose(0, 2, 3, 1)
        assert ours.shape == reference.shape and reference.std() > 0.01
        error = np.abs(ours - reference).max() / np.abs(reference).max()
        assert error < 1e-5  # 2e-6 was seen


@pytest.mark.parametrize("sizes", [SMALL[0], PLAIN[0]])
def test_shapes_and_types_in_bfloat16(sizes):
    half, key = jnp.dtype("bfloat16"), jax.random.key(0)
    x = jax.ShapeDtypeStruct((2, 24, 40, 3), F32)
    z, params = jax.eval_shape(
        lambda k, x: KlEncoder(sizes, half).init_with_output(k, x), key, x
    )
    assert z.shape == (2, 24 // sizes.down, 40 // sizes.down, sizes.latent_channels)
    again, _ = jax.eval_shape(
        lambda k, z: KlDecoder(sizes, 3, half).init_with_output(k, z), key, z
    )
    assert again.shape == x.shape and z.dtype == again.dtype == F32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {F32}


def test_the_latents_are_the_mean():
    """The first half of the channels, the second is the log variance."""
    encoder, x = KlEncoder(PLAIN[0], F32), jnp.ones((1, 8, 8, 3))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["params"]["conv_out"]["bias"] = jnp.arange(8.0)
    found = jax.jit(encoder.apply)(params, x)
    np.testing.assert_array_equal(found[0, 2, 3], [0.0, 1.0, 2.0, 3.0])


def test_down_it_pads_at_the_end_alone():
    """By the impulse's way through a convolution of known weights, as diffusers has it."""
    made = Resampler(up=False, dtype=F32)
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    params = {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}
    impulse = jnp.zeros((1, 4, 4, 1)).at[0, 2, 2, 0].set(1.0)
    found = made.apply({"params": params}, impulse)[0, :, :, 0]
    np.testing.assert_array_equal(found, [[9.0, 7.0], [3.0, 1.0]])
