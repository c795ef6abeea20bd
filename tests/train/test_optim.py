"""The learning rate at named steps, and which parameters decay."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ul.core.errors import ConfigError
from ul.train import optim


def test_learning_rate_at_named_steps():
    lr = optim.learning_rate(lr=1.0, warmup=10, steps=110, final_fraction=0.2)
    rates = [float(lr(s)) for s in (0, 4, 9, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 0.6, 0.2, 0.2], rtol=1e-5)


def test_a_constant_rate_without_warmup():
    lr = optim.learning_rate(lr=0.5, warmup=0, steps=10, final_fraction=1.0)
    np.testing.assert_allclose([float(lr(s)) for s in (0, 5, 10)], 0.5)


def test_only_kernels_decay():
    params = {
        "a": {"kernel": 1, "bias": 1},
        "norm": {"scale": 1},
        "inner": {"position": 1},
        "label": {"embedding": 1},
    }
    assert optim.decay_mask(params) == {
        "a": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "inner": {"position": False},
        "label": {"embedding": False},
    }


def test_an_unlisted_parameter_is_an_error():
    with pytest.raises(ConfigError, match="x/mystery"):
        optim.decay_mask({"x": {"mystery": 1}})


def test_gradients_are_clipped_and_only_kernels_decay():
    """Adam's second moment, 0.01 g^2, holds the norm of the clipped gradient."""
    tx = optim.adamw(lambda step: 0.1, b1=0.9, b2=0.99, weight_decay=0.5, clip=1.0)
    params = {"kernel": jnp.full(2, 3.0), "bias": jnp.full(2, 3.0)}
    zero = {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)}
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 3.0, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0.0)
    large = {"kernel": jnp.full(2, 30.0), "bias": jnp.full(2, 40.0)}
    _, opt = tx.update(large, tx.init(params), params)
    nu = optax.tree_utils.tree_get(opt, "nu")
    np.testing.assert_allclose(sum(jnp.sum(v) for v in nu.values()), 0.01, rtol=1e-5)
