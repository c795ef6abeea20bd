"""The networks in PyTorch beside those in JAX, on random parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import untrained
from tests.lib.breaks import Break
from ul.inference.pytorch import convert
from ul.stages import networks, registry

B = 2
BREAKS = (
    Break(
        "PyTorch linear layers with kernels as Flax has them",
        "ul/inference/pytorch/convert.py",
        "value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)",
        "value = value if value.ndim == 2 else value.transpose(3, 2, 0, 1)",
        "test_parameters_have_the_layouts_of_pytorch",
    ),
)


def test_parameters_have_the_layouts_of_pytorch():
    """Linear weights are [out, in], convolutions [out, in, H, W], blocks one by one."""
    params = {
        "stem": {"kernel": np.zeros((3, 3, 4, 8))},
        "down_1": {"Dense_0": {"kernel": np.zeros((16, 5)), "bias": np.zeros(5)}},
        "stage_0_1": {"RMSNorm_1": {"scale": np.zeros(8)}},
        "inner": {"blocks": {"mlp_in": {"kernel": np.zeros((2, 8, 32))}}},
    }
    found = {k: v.shape for k, v in convert.state_dict(params).items()}
    assert found == {
        "stem.weight": (8, 4, 3, 3),
        "down.0.weight": (5, 16),
        "down.0.bias": (5,),
        "stages.0.1.norm2.weight": (8,),
        "inner.blocks.0.mlp_in.weight": (32, 8),
        "inner.blocks.1.mlp_in.weight": (32, 8),
    }


def random_like(params, seed=0):
    """Parameters of the scale of trained ones; networks start with many zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: np.float32(p + rng.normal(size=p.shape) * 0.2 / p.shape[0] ** 0.5),
        params,
    )


def load(network, params):
    import torch

    tensors = {k: torch.tensor(v) for k, v in convert.state_dict(params).items()}
    network.load_state_dict(tensors)  # all parameters, and no others
    return network.eval()


def as_tensors(**arrays):
    import torch

    return {k: torch.tensor(np.asarray(v)) for k, v in arrays.items()}


def assert_close(found, wanted, rtol):
    error = np.abs(found.detach().numpy() - wanted).max()
    assert error <= rtol * np.abs(wanted).max()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("file", "variant", "changes"),
    [
        ("digits", "stage1", {}),
        ("photos", "stage1_16", {}),
        ("photos", "stage1_16", {"decoder": {"residual_upsampling": True}}),
        ("photos", "stage1_16", {"decoder": {"scan": True}}),
        ("moving_digits", "stage1", {}),
    ],
)
def test_encoder_and_decoder_agree(file, variant, changes):
    pytest.importorskip("torch")
    from ul.inference.pytorch import networks as torch_networks

    config = untrained.parsed(file, variant, **changes)
    stage = registry.build(config)
    modules = networks.stage1_modules(config, has_variance=False, is_single_stage=False)
    params = random_like(stage.init(jax.random.key(0)))
    rng, shape, latent = np.random.default_rng(1), stage.image_shape, stage.latent_shape
    x = np.float32(rng.uniform(-1, 1, (B, *shape)))
    z_0 = np.float32(rng.normal(size=(B, *latent)))
    logsnr = np.float32(rng.uniform(-8, 8, B))
    encoder = load(torch_networks.Encoder(config.encoder, shape), params["encoder"])
    wanted = networks.apply(modules.encoder, params["encoder"], jnp.asarray(x))
    assert_close(encoder(**as_tensors(x=x)), wanted, 1e-5)
    decoder = load(
        torch_networks.UViT(config.decoder, shape, latent),
        params["decoder"],
    )
    inputs = map(jnp.asarray, (x, logsnr, z_0))
    wanted = networks.apply(modules.decoder, params["decoder"], *inputs)
    found = decoder(**as_tensors(x_t=x, logsnr=logsnr, z_0=z_0))
    assert_close(found, wanted, 1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("file", "variant"),
    [
        ("digits", "stage2"),
        ("photos", "stage2_16"),
        ("imagenet512", "stage2,smoke"),
        ("captions", "stage2"),
        ("moving_digits", "stage2"),
    ],
)
def test_the_base_model_agrees(file, variant):
    pytest.importorskip("torch")
    from ul.inference.pytorch import networks as torch_networks

    config = untrained.parsed(file, variant, dtype="float32")
    stage = registry.build(config)
    (use,) = stage.networks.values()
    params = random_like(stage.init(jax.random.key(0)))
    rng = np.random.default_rng(1)
    z_t = np.float32(rng.normal(size=(B, *stage.latent_shape)))
    logsnr = np.float32(rng.uniform(-8, 8, B))
    condition = {
        name: np.asarray(rng.integers(0, 5, (B, *value.shape[1:])), value.dtype)
        for name, value in stage.conditions.zeros().items()
    }
    given = {name: jnp.asarray(value) for name, value in condition.items()}
    inputs = jnp.asarray(z_t), jnp.asarray(logsnr)
    wanted = networks.apply(use.module, params, *inputs, condition=given)
    made = config.base | {
        "num_classes": use.module.num_classes,
        "text_channels": use.module.text_channels,
        "has_context": "context" in condition,
    }
    base = load(torch_networks.ViT(made, stage.latent_shape), params)
    found = base(**as_tensors(z_t=z_t, logsnr=logsnr, **condition))
    assert_close(found, wanted, 1e-5)
