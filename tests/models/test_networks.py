"""Shapes, types and gradients of the networks, and that options change no values."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from tests.lib.untrained import awake
from ul.core import trees
from ul.core.errors import ConfigError
from ul.models import checks, remat
from ul.models.attention import Attention, Block
from ul.models.encoder import Encoder
from ul.models.text_conditioning import Text
from ul.models.uvit import UViT
from ul.models.vit import ViT

F32, BF16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
HOW = dict(head_dim=16, dropout=0.0, attention="xla", remat="none", scan=False)
X = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
Z = jax.random.normal(jax.random.key(1), (2, 4, 4, 5))
LOGSNR = jnp.asarray([-3.0, 4.0])
LABEL = jnp.asarray([1, 7])
TEXT = jax.random.normal(jax.random.key(3), (2, 5, 6)) * 30.0
LENGTH = jnp.asarray([3, 5])


def encoder(**changes):
    settings = dict(
        patch=2,
        channels=(8, 16),
        blocks=(1, 2),
        latent_channels=5,
        remat="none",
        dtype=F32,
    )
    return Encoder(**settings | changes)


def prior(**changes):
    settings = dict(widths=(32,), depths=(2,), num_classes=0, dtype=F32) | HOW
    return ViT(**settings | changes)


def base(**changes):
    return prior(**dict(widths=(16, 32), depths=(3, 2), num_classes=9) | changes)


def text_prior(**changes):
    return prior(**dict(depths=(1,), text_channels=6) | changes)


def decoder(**changes):
    settings = (
        dict(
            patch=2,
            channels=(8,),
            blocks=1,
            width=32,
            depth=2,
            latent_at_input=False,
            dtype=F32,
        )
        | HOW
    )
    return UViT(**settings | changes)


CASES = {
    "encoder": (encoder, (X,), (2, 4, 4, 5)),
    "prior": (prior, (Z, LOGSNR), Z.shape),
    "base": (base, (Z, LOGSNR, LABEL), Z.shape),
    "base_of_patch_2": (
        lambda **c: base(**c | dict(depths=(0, 2))),
        (Z, LOGSNR, LABEL),
        Z.shape,
    ),
    "text": (text_prior, (Z, LOGSNR, None, TEXT, LENGTH), Z.shape),
    "decoder": (decoder, (X, LOGSNR, Z), X.shape),
    "decoder_latent_at_input": (
        lambda **c: decoder(**c | dict(latent_at_input=True)),
        (X, LOGSNR, Z),
        X.shape,
    ),
}


def noisy_params(module, args, seed=2):
    """Parameters away from their zero starts, without compiling an initialization."""
    shapes = jax.eval_shape(module.init, jax.random.key(seed), *args)["params"]
    rng = np.random.default_rng(seed)

    def draw(path, p):
        middle = 1.0 if path[-1].key == "scale" else 0.0
        std = 0.1 if p.ndim < 2 else 0.1 + p.shape[-2] ** -0.5
        return (middle + std * rng.normal(size=p.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, *args):
    return module.apply({"params": params}, *args)


@functools.partial(jax.jit, static_argnums=0)
def gradient(module, params, *args):
    """Return the gradient of a scalar that depends on every output element."""
    return jax.grad(lambda p: jnp.sum(jnp.sin(apply(module, p, *args))))(params)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_shape_and_types(name, dtype):
    make, args, shape = CASES[name]
    module = make(dtype=dtype)
    out, variables = jax.eval_shape(
        lambda *a: module.init_with_output(jax.random.key(0), *a), *args
    )
    assert (out.shape, out.dtype) == (shape, F32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {F32}


@pytest.mark.parametrize("name", [n for n in CASES if n != "encoder"])
def test_denoisers_start_at_zero(name):
    make, args, _ = CASES[name]
    out, _ = jax.jit(make().init_with_output)(jax.random.key(0), *args)
    np.testing.assert_array_equal(out, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_gets_a_gradient(name):
    make, args, _ = CASES[name]
    module = make()
    params = noisy_params(module, args)
    grads = gradient(module, params, *args)
    without = [
        p for p, g in trees.leaves_by_path(grads).items() if not np.any(np.asarray(g))
    ]
    assert without == []


# The others run with -m slow.
FAST_REMAT = (("encoder", "full"), ("prior", "dots"))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(n, p, marks=() if (n, p) in FAST_REMAT else pytest.mark.slow)
        for n in ("encoder", "prior", "decoder")
        for p in ("full", "dots")
    ],
)
def test_remat_changes_no_gradient(name, policy):
    make, args, _ = CASES[name]
    params = noisy_params(make(), args)

    # Recomputed sums may be fused in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient(make(remat=policy), params, *args),
        gradient(make(), params, *args),
    )


@pytest.mark.parametrize(
    ("remat", "text"),
    [
        ("none", False),
        pytest.param("full", False, marks=pytest.mark.slow),
        pytest.param("dots", False, marks=pytest.mark.slow),
        ("dots", True),
    ],
)
def test_scan_is_the_loop_over_stacked_parameters(remat, text):
    more = dict(text_channels=6) if text else {}
    args = (Z, LOGSNR, None, TEXT, LENGTH) if text else CASES["prior"][1]
    params = noisy_params(prior(**more), args)
    inner = params["inner"]
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), inner["block_0"], inner["block_1"]
    )
    scanned = params | {"inner": {"position": inner["position"], "blocks": stacked}}
    np.testing.assert_allclose(
        apply(prior(scan=True, remat=remat, **more), scanned, *args),
        apply(prior(**more), params, *args),
        atol=1e-5,
    )


def test_the_highest_level_of_the_decoder_has_no_dropout_by_default():
    """The last rate is that of the level that the transformer works on."""
    for rates, expected in (((), (0.0, 0.3, 0.3)), ((0.1, 0.2), (0.1, 0.2))):
        module = decoder(channels=(8, 8), dropout=0.3, level_dropout=rates)
        assert module._level_dropout() == expected
    with pytest.raises(ConfigError, match="decoder.level_dropout must hold 2 numbers"):
        decoder(channels=(8, 8), level_dropout=(0.1,)).check("decoder", (16, 16, 3))


def test_the_way_up_adds_what_the_inner_part_changed():
    """At the start the inner part changes nothing, so the way up has nothing to add."""
    for is_changed, module in (
        (True, decoder()),
        (False, decoder(residual_upsampling=True)),
    ):
        params = module.init(jax.random.key(0), X, LOGSNR, Z)["params"]
        inner = params["inner"] | {"position": 0.0 * params["inner"]["position"]}
        latent = jax.tree.map(jnp.zeros_like, params["latent"])
        head = awake(params["head"])
        params = params | {"inner": inner, "latent": latent, "head": head}
        moved = jax.tree.map(lambda p: 2.0 * p, params["split_0"])
        outputs = [
            module.apply({"params": params | {"split_0": split}}, X, LOGSNR, Z)
            for split in (params["split_0"], params["split_0"] | {"Dense_0": dict(
                moved["Dense_0"], bias=params["split_0"]["Dense_0"]["bias"])})
        ]  # fmt: skip
        assert (np.abs(outputs[0] - outputs[1]).max() > 1e-3) == is_changed


def test_dropout_needs_a_key_and_changes_the_output():
    args = CASES["decoder"][1]
    params = noisy_params(decoder(), args)
    module = decoder(dropout=0.5)

    @jax.jit
    def out(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply({"params": params}, *args, rngs=rngs)

    np.testing.assert_array_equal(out(0), out(0))
    assert float(jnp.max(jnp.abs(out(0) - out(1)))) > 1e-3


@pytest.mark.parametrize("changed", ["logsnr", "label", "z_0"])
def test_conditions_matter_and_rows_do_not_mix(changed):
    make, args, _ = CASES["decoder" if changed == "z_0" else "base"]
    module = make()
    params = noisy_params(module, args)
    place = {"logsnr": 1, "label": 2, "z_0": 2}[changed]
    other = list(args)
    other[place] = args[place].at[0].add(1)
    before, after = (apply(module, params, *a) for a in (args, other))
    assert float(jnp.max(jnp.abs(before[0] - after[0]))) > 1e-4
    np.testing.assert_allclose(before[1], after[1], atol=1e-6)


def test_text_counts_up_to_its_length_and_rows_do_not_mix():
    params = noisy_params(text_prior(), CASES["text"][1])

    def out(text, length=LENGTH):
        return np.asarray(apply(text_prior(), params, Z, LOGSNR, None, text, length))

    before = out(TEXT)
    np.testing.assert_array_equal(out(TEXT.at[0, 3:].set(1e3)), before)
    for token in range(3):
        after = out(TEXT.at[0, token].multiply(-1.0))
        assert np.abs(after[0] - before[0]).max() > 1e-4
        np.testing.assert_array_equal(after[1], before[1])
    none = out(TEXT, jnp.zeros_like(LENGTH))
    assert np.isfinite(none).all() and np.abs(none - before).max() > 1e-3
    np.testing.assert_array_equal(out(-TEXT, jnp.zeros_like(LENGTH)), none)


def test_attention_sees_text_and_image_in_one_softmax():
    """Queries of the image alone; against sums written out."""
    module = Attention(16, "xla", F32)
    x = jax.random.normal(jax.random.key(0), (2, 4, 32))
    text = Text(jax.random.normal(jax.random.key(1), (2, 3, 8)), jnp.asarray([2, 0]))
    params = noisy_params(module, (x, text))
    got = apply(module, params, x, text)
    params, x, text = jax.tree.map(np.asarray, (params, x, text))

    def product(name, h):
        return h @ params[name]["kernel"] + params[name]["bias"]

    def normed(name, h):
        h = h / np.sqrt(np.mean(np.square(h), -1, keepdims=True) + 1e-6)
        return h * params[name]["scale"]

    for row, length in enumerate((2, 0)):
        q, k, v = np.split(product("qkv", x[row]), 3, axis=-1)
        text_k, text_v = np.split(product("text_kv", text.tokens[row, :length]), 2, -1)
        parts = []
        for head in (slice(0, 16), slice(16, 32)):
            query = normed("q_norm", q[:, head])
            keys = [
                normed("k_norm", k[:, head]),
                normed("text_k_norm", text_k[:, head]),
            ]
            weight = np.exp(query @ np.concatenate(keys).T / 4.0)
            values = np.concatenate([v[:, head], text_v[:, head]])
            parts.append(weight @ values / weight.sum(-1, keepdims=True))
        want = product("out", np.concatenate(parts, -1))
        np.testing.assert_allclose(got[row], want, atol=1e-5)


def test_bfloat16_compute_stays_near_float32():
    args = CASES["decoder"][1]
    params = noisy_params(decoder(), args)
    a = apply(decoder(), params, *args)
    b = apply(decoder(dtype=BF16), params, *args)
    # Eight bits of mantissa through a few layers.
    assert float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) < 0.05


def test_a_policy_says_what_is_computed_again():
    """A block has two products of attention, and five with weights."""
    x, cond = jnp.ones((2, 4, 32)), jnp.ones((2, 32))

    def products(policy):
        block = remat.remat(Block, policy)(16, "xla", 0.0, F32)
        params = jax.eval_shape(block.init, jax.random.key(0), x, cond)

        def loss(params):
            return jnp.sum(jnp.sin(block.apply(params, x, cond)[0]))

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    none, dots, full = (products(p) for p in ("none", "dots", "full"))
    assert (dots - none, full - dots) == (2, 5)


class DenseDenoiser(nn.Module):
    """A network without attention, dropout and remat."""

    width: int

    def check(self, section, latent_shape, has_text=False):
        checks.check_settings(section, self)


def test_a_network_needs_no_settings_that_it_does_not_use():
    DenseDenoiser(8).check("prior", (4, 4, 5))
    with pytest.raises(ConfigError, match="prior.width must be at least 1; got 0"):
        DenseDenoiser(0).check("prior", (4, 4, 5))


BREAKS = (
    Break(
        "attention to the padding of texts",
        "ul/models/attention.py",
        "length = k.shape[1] + text.length",
        "length = k.shape[1] + 0 * text.length + text.tokens.shape[1]",
        "test_text_counts_up_to_its_length_and_rows_do_not_mix",
    ),
)
