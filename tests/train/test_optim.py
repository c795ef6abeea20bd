"""The learning rate at named steps, and which parameters decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.train import optim


def test_learning_rate_at_named_steps():
    lr = optim.learning_rate(lr=1.0, warmup=10, steps=110, final_fraction=0.2)
    rates = [float(lr(s)) for s in (0, 4, 9, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 0.6, 0.2, 0.2], rtol=1e-5)


def test_a_constant_rate_without_warmup():
    lr = optim.learning_rate(lr=0.5, warmup=0, steps=10, final_fraction=1.0)
    np.testing.assert_allclose([float(lr(s)) for s in (0, 5, 10)], 0.5)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.1, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("warmup_stable_decay", [0.1, 1.0, 1.0, 1.0, 0.6, 0.2]),
        (
            "inverse_sqrt",
            [0.1, 1.0, 1.0, np.sqrt(1 / 9), np.sqrt(1 / 10), np.sqrt(1 / 11)],
        ),
    ],
)
def test_other_schedules_at_named_steps(schedule, rates):
    """The stable phase ends at step 90 of 110, of which the decay takes 20."""
    lr = optim.learning_rate(
        lr=1.0,
        warmup=10,
        steps=110,
        final_fraction=0.2,
        schedule=schedule,
        decay_fraction=20 / 110,
    )
    steps = (0, 9, 10, 90, 100, 110)
    np.testing.assert_allclose([float(lr(s)) for s in steps], rates, rtol=1e-5)


def test_muon_moves_hidden_layers_by_orthogonal_matrices():
    """A gradient of any singular values gives an update of nearly equal ones."""
    tx = optim.muon(lambda step: 0.1, b1=0.9, b2=0.99, weight_decay=0.0, clip=1e9)
    generator = np.random.default_rng(0)
    shapes = {
        "block": {"kernel": (16, 8), "bias": (8,)},
        "conv": {"kernel": (3, 3, 4, 6)},
        "scanned": {"kernel": (2, 8, 8)},
        "stem": {"kernel": (16, 8)},
        "label": {"embedding": (4, 8)},
    }
    is_shape = dict(is_leaf=lambda leaf: isinstance(leaf, tuple))
    gradient = jax.tree.map(
        lambda shape: jnp.float32(
            generator.normal(size=shape) * np.arange(1, shape[-1] + 1) ** 2
        ),
        shapes,
        **is_shape,
    )
    params = jax.tree.map(jnp.zeros_like, gradient)
    updates, _ = jax.jit(tx.update)(gradient, tx.init(params), params)

    def spread(matrix):
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        return values.max() / values.min()

    assert spread(gradient["conv"]["kernel"].reshape(36, 6)) > 20
    for matrix in (
        updates["block"]["kernel"],
        updates["conv"]["kernel"].reshape(36, 6),
        *updates["scanned"]["kernel"],
    ):
        assert spread(matrix) < 2
        # The root mean square of AdamW's updates at the same learning rate is about 0.2 lr.
        assert 0.01 < np.sqrt(np.mean(np.square(matrix))) < 0.03
    for name, leaf in (("stem", "kernel"), ("label", "embedding"), ("block", "bias")):
        np.testing.assert_allclose(
            updates[name][leaf], -0.1 * np.sign(gradient[name][leaf]), rtol=1e-3
        )


def test_muon_decays_kernels_only():
    tx = optim.muon(lambda step: 0.1, b1=0.9, b2=0.99, weight_decay=0.5, clip=1.0)
    params = {
        "block": {"kernel": jnp.full((2, 3), 3.0), "bias": jnp.full(3, 3.0)},
        "stem": {"kernel": jnp.full((2, 3), 3.0)},
    }
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    for name in ("block", "stem"):
        np.testing.assert_allclose(updates[name]["kernel"], -0.15, rtol=1e-5)
    np.testing.assert_array_equal(updates["block"]["bias"], 0.0)


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


BREAKS = (
    Break(
        "Muon on the first and last layers",
        "ul/train/optim.py",
        "not NOT_HIDDEN & set(parts)",
        "True",
        "test_muon_moves_hidden_layers_by_orthogonal_matrices",
    ),
    Break(
        "one orthogonal matrix for a stack of blocks",
        "ul/train/optim.py",
        "first = 1 if leaf.ndim == 3 else 0",
        "first = 0",
        "test_muon_moves_hidden_layers_by_orthogonal_matrices",
    ),
)
