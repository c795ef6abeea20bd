import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.diffusion import gaussian
from ul.diffusion import predictions as p

LEVELS = jnp.asarray([-8.0, -1.0, 0.0, 3.0, 8.0])
X = jax.random.normal(jax.random.key(0), (5, 2, 2, 3))
EPS = jax.random.normal(jax.random.key(1), X.shape)
Z = gaussian.corrupt(X, EPS, LEVELS)


@pytest.mark.parametrize(
    ("there", "back"), [(p.v_from_x, p.x_from_v), (p.eps_from_x, p.x_from_eps)]
)
def test_round_trips(there, back):
    # Dividing by alpha at logsnr -8 costs a factor 55.
    np.testing.assert_allclose(back(there(X, Z, LEVELS), Z, LEVELS), X, atol=1e-4)


def test_eps_is_the_noise_that_was_added():
    np.testing.assert_allclose(p.eps_from_x(X, Z, LEVELS), EPS, atol=1e-4)


def test_v_is_alpha_eps_minus_sigma_x():
    a, s = (gaussian.expand(f(LEVELS), X) for f in (gaussian.alpha, gaussian.sigma))
    np.testing.assert_allclose(p.v_from_x(X, Z, LEVELS), a * EPS - s * X, atol=1e-4)
