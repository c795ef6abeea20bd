"""Weights on the eps error of the ELBO integrand, as functions of logsnr."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked


@typechecked
def elbo(logsnr: Float[Array, " B"]) -> Float[Array, " B"]:
    """Return weight 1, with which the loss is a bound on the likelihood in nats."""
    return jnp.ones_like(logsnr)


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """The weight factor * sigmoid(bias - logsnr) (UL, equation 4 of ul/README.md).

    It discounts low noise levels (logsnr above the bias), so errors in fine detail cost
    little. On the x error the same weight is exp(bias) sigmoid(logsnr - bias) (Kingma &
    Gao, Understanding Diffusion Objectives as the ELBO, arXiv 2303.00848).
    """

    bias: float
    factor: float = 1.0

    @typechecked
    def __call__(self, logsnr: Float[Array, " B"]) -> Float[Array, " B"]:
        return self.factor * jax.nn.sigmoid(self.bias - logsnr)


# By `kind`, the constructors of weightings from their settings.
WEIGHTINGS: dict[str, Callable[..., Callable]] = {
    "sigmoid": Sigmoid,
    "elbo": lambda: elbo,
}
