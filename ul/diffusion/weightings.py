"""Weights on the eps error of the ELBO integrand, as functions of logsnr."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked


@typechecked
def elbo(logsnr: Float[Array, " B"]) -> Float[Array, " B"]:
    """1: the loss is a bound on the likelihood, in nats."""
    return jnp.ones_like(logsnr)


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """factor * sigmoid(bias - logsnr) (UL, section 1.4 of the method; Kingma & Gao).

    Low noise (logsnr above the bias) is discounted: fine detail is cheap to get
    wrong. On the x error the same weight reads exp(bias) sigmoid(logsnr - bias).
    """

    bias: float
    factor: float = 1.0

    @typechecked
    def __call__(self, logsnr: Float[Array, " B"]) -> Float[Array, " B"]:
        return self.factor * jax.nn.sigmoid(self.bias - logsnr)


# By `kind`, constructors of weightings from their settings.
WEIGHTINGS: dict[str, Callable[..., Callable]] = {
    "sigmoid": Sigmoid,
    "elbo": lambda: elbo,
}
