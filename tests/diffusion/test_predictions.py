"""Conversions between the predictions x, eps and v."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import gaussian
from ul.diffusion import predictions as p

LEVELS = jnp.asarray([-8.0, -1.0, 0.0, 3.0, 8.0])
X = jax.random.normal(jax.random.key(0), (5, 2, 2, 3))
EPS = jax.random.normal(jax.random.key(1), X.shape)
Z = gaussian.corrupt(X, EPS, LEVELS)


@pytest.mark.parametrize(
    ("to", "back"), [(p.v_from_x, p.x_from_v), (p.eps_from_x, p.x_from_eps)]
)
def test_each_conversion_inverts_its_opposite(to, back):
    # Dividing by alpha at logsnr -8 multiplies rounding errors by 55.
    np.testing.assert_allclose(back(to(X, Z, LEVELS), Z, LEVELS), X, atol=1e-4)


def test_eps_is_the_noise_that_was_added():
    np.testing.assert_allclose(p.eps_from_x(X, Z, LEVELS), EPS, atol=1e-4)


def test_v_is_alpha_eps_minus_sigma_x():
    a, s = (gaussian.expand(f(LEVELS), X) for f in (gaussian.alpha, gaussian.sigma))
    np.testing.assert_allclose(p.v_from_x(X, Z, LEVELS), a * EPS - s * X, atol=1e-4)


def test_the_true_eps_and_the_true_v_give_x():
    a, s = (gaussian.expand(f(LEVELS), X) for f in (gaussian.alpha, gaussian.sigma))
    np.testing.assert_allclose(p.x_from_eps(EPS, Z, LEVELS), X, atol=1e-4)
    np.testing.assert_allclose(p.x_from_v(a * EPS - s * X, Z, LEVELS), X, atol=1e-5)


def test_eps_from_v_through_x():
    """eps = sigma z + alpha v, the other half of the rotation of (x, eps)."""
    a, s = (gaussian.expand(f(LEVELS), X) for f in (gaussian.alpha, gaussian.sigma))
    v = EPS + 0.3
    # Dividing by sigma at logsnr 8 multiplies rounding errors by 55.
    np.testing.assert_allclose(
        p.eps_from_x(p.x_from_v(v, Z, LEVELS), Z, LEVELS), s * Z + a * v, atol=1e-4
    )


@pytest.mark.parametrize("to", [p.x_from_v, p.v_from_x, p.x_from_eps, p.eps_from_x])
def test_conversions_are_affine_and_finite_at_extreme_levels(to):
    ends = jnp.asarray([-20.0, -1.0, 0.0, 1.0, 20.0])
    middle = (to(X, Z, ends) + to(EPS, Z, ends)) / 2
    assert bool(jnp.all(jnp.isfinite(middle)))
    np.testing.assert_allclose(to((X + EPS) / 2, Z, ends), middle, rtol=1e-4, atol=1e-4)


BREAKS = (
    Break(
        "sigma computed by subtraction",
        "ul/diffusion/gaussian.py",
        "jnp.sqrt(jax.nn.sigmoid(-logsnr))",
        "jnp.sqrt(1.0 - jax.nn.sigmoid(logsnr))",
        "test_conversions_are_affine_and_finite_at_extreme_levels",
    ),
    Break(
        "alpha and sigma swapped in x from v",
        "ul/diffusion/predictions.py",
        "return alpha(logsnr) * z_t - sigma(logsnr) * v",
        "return sigma(logsnr) * z_t - alpha(logsnr) * v",
        "test_the_true_eps_and_the_true_v_give_x",
    ),
)
