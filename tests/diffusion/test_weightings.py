"""Weights of the denoising loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import weightings

LOGSNR = jnp.linspace(-12.0, 12.0, 49)


@pytest.mark.parametrize("bias", [-2.0, 0.0, 3.0])
def test_the_equivalent_weight_of_the_x_error(bias):
    """exp(l) sigmoid(b - l) = exp(b) sigmoid(l - b)."""
    weight = weightings.Sigmoid(bias, 1.5)(LOGSNR)
    np.testing.assert_allclose(
        jnp.exp(LOGSNR) * weight,
        1.5 * np.exp(bias) * jax.nn.sigmoid(LOGSNR - bias),
        rtol=1e-5,
    )


def test_low_noise_levels_are_discounted_and_high_ones_are_not():
    weight = weightings.Sigmoid(1.0, 2.0)(jnp.asarray([-12.0, 1.0, 12.0]))
    np.testing.assert_allclose(weight, [2.0, 1.0, 0.0], atol=1e-4)


def test_the_elbo_weight_is_one():
    np.testing.assert_array_equal(weightings.elbo(LOGSNR), 1.0)


BREAKS = (
    Break(
        "the sigmoid weight with the other sign",
        "ul/diffusion/weightings.py",
        "jax.nn.sigmoid(self.bias - logsnr)",
        "jax.nn.sigmoid(logsnr - self.bias)",
        "test_the_equivalent_weight_of_the_x_error",
    ),
)
