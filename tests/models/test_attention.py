"""Implementations of attention: equal values and gradients, and which one is chosen."""

import contextlib
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.models import attention_kernels
from ul.models.attention import Attention
from ul.models.text_conditioning import Text

F32, BF16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
BATCH, TOKENS, WIDTH, HEAD_DIM = 8, 128, 128, 64
X = jax.random.normal(jax.random.key(0), (BATCH, TOKENS, WIDTH))


def attention(implementation, dtype=F32, frames=0):
    return Attention(HEAD_DIM, implementation, dtype, frames)


def outputs_and_gradients(implementation, dtype=F32, axes=None):
    """Return the outputs of a layer and the gradients of their weighted sum."""
    weight = jax.random.normal(jax.random.key(1), X.shape)
    params = attention("xla").init(jax.random.key(2), X)
    layer = attention(implementation, dtype)

    def loss(params, x):
        y = layer.apply(params, x).astype(jnp.float32)
        return jnp.sum(y * weight), y

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    with contextlib.ExitStack() as stack:
        x = X
        if axes:
            mesh = meshes.make(*axes)
            stack.enter_context(jax.set_mesh(mesh))
            x = jax.device_put(x, meshes.batch_sharding(mesh))
            params = jax.device_put(params, meshes.tree_shardings(mesh, params))
        (_, y), gradients = run(params, x)
    return jax.device_get((y, gradients))


def largest_difference(actual, expected):
    """Return the largest difference relative to the largest value of each array."""
    differences = jax.tree.map(
        lambda a, e: np.abs(a - e).max() / np.abs(e).max(), actual, expected
    )
    return max(jax.tree.leaves(differences))


@pytest.fixture(scope="module")
def expected():
    return outputs_and_gradients("xla")


@pytest.mark.parametrize("axes", [None, (2, 4)])
def test_splash_attention_has_the_values_and_gradients_of_xla(expected, axes):
    actual = outputs_and_gradients("splash", axes=axes)
    assert largest_difference(actual, expected) < 1e-5


@pytest.mark.slow
def test_splash_attention_in_bfloat16_is_as_close_as_xla(expected):
    error_of_xla = largest_difference(outputs_and_gradients("xla", BF16), expected)
    error = largest_difference(outputs_and_gradients("splash", BF16), expected)
    assert 0.0 < error < 2.0 * error_of_xla < 0.1


def choose(setting="auto", **changes):
    arguments = (
        dict(tokens=1024, heads=8, head_dim=128, dtype=BF16, is_full=True) | changes
    )
    return attention_kernels.choose(setting, **arguments)


@pytest.mark.parametrize(
    ("platform", "changes", "chosen"),
    [
        ("cpu", {}, "xla"),
        ("tpu", {}, "splash"),
        ("tpu", {"dtype": F32}, "splash"),
        ("tpu", {"tokens": 64}, "xla"),
        ("tpu", {"is_full": False}, "xla"),
        ("gpu", {}, "cudnn"),
        ("gpu", {"is_full": False}, "cudnn"),
        ("gpu", {"dtype": F32}, "xla"),
        ("gpu", {"head_dim": 256}, "xla"),
    ],
)
def test_auto_chooses_by_platform_shape_and_text(
    monkeypatch, caplog, platform, changes, chosen
):
    monkeypatch.setattr(meshes, "platform", lambda: platform)
    attention_kernels._log_choice.cache_clear()
    with caplog.at_level(logging.INFO, "ul"):
        assert choose(**changes) == chosen
        assert choose("xla", **changes) == "xla"
        choose(**changes)
    (line,) = caplog.messages  # each choice is logged once
    assert line.startswith(f"attention: {chosen} for ") and line.endswith(platform)


def test_auto_follows_the_devices_of_the_mesh_and_runs_on_a_cpu(expected):
    assert largest_difference(outputs_and_gradients("auto"), expected) == 0.0
    with jax.set_mesh(meshes.make(8, 1)):
        assert meshes.platform() == "cpu"


def test_splash_refuses_text_clips_and_odd_sizes_in_one_line():
    text = Text(jnp.zeros((BATCH, 3, WIDTH)), jnp.full((BATCH,), 3))
    calls = (
        (attention("splash"), (X, text)),
        (attention("splash", frames=4), (X,)),
        (attention("splash"), (X[:, :100],)),
    )
    for layer, inputs in calls:
        params = jax.eval_shape(layer.init, jax.random.key(0), *inputs)
        with pytest.raises(ConfigError, match="splash. requires .*; got") as e:
            jax.eval_shape(layer.apply, params, *inputs)
        assert "\n" not in str(e.value)


BREAKS = (
    Break(
        "splash attention without the scale of its queries",
        "ul/models/attention_kernels.py",
        "q * jnp.asarray(head_dim**-0.5, q.dtype)",
        "q * jnp.asarray(1.0, q.dtype)",
        "test_splash_attention_has_the_values_and_gradients_of_xla",
    ),
    Break(
        "heads that splash attention reads in another order",
        "ul/models/attention.py",
        "kernel.reshape(heads, head_dim, width)",
        "kernel.reshape(head_dim, heads, width).swapaxes(0, 1)",
        "test_splash_attention_has_the_values_and_gradients_of_xla",
    ),
)
