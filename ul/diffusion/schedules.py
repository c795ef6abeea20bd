"""Noise schedules: strictly decreasing functions from t in [0, 1] to logsnr.

The expected loss does not depend on a schedule's shape, only its variance does. The ends
are part of the model: logsnr_max is reached exactly at t=0, the lowest noise level, and
logsnr_min at t=1, the highest.
"""

import dataclasses
import math

import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked


@dataclasses.dataclass(frozen=True)
class Linear:
    """The schedule whose logsnr falls linearly from logsnr_max to logsnr_min.

    An end may also be an array [B] with one value per example.
    """

    logsnr_max: float
    logsnr_min: float

    @typechecked
    def logsnr(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return logsnr at time t."""
        return (1.0 - t) * self.logsnr_max + t * self.logsnr_min

    @typechecked
    def derivative(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return d logsnr / dt, which is negative."""
        return jnp.full_like(t, self.logsnr_min - self.logsnr_max)

    @typechecked
    def inverse(self, logsnr: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the t at which the schedule reaches `logsnr`."""
        return (self.logsnr_max - logsnr) / (self.logsnr_max - self.logsnr_min)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """The cosine schedule on a finite range of logsnr, shifted by a constant.

    logsnr = -2 log tan(a) + shift with a linear in t, so alpha = cos(a) without a shift
    (Nichol & Dhariwal, Improved DDPM). The shift 2 log(64 / resolution) is that of
    Hoogeboom et al., simple diffusion. The ends are the values after the shift.
    """

    logsnr_max: float
    logsnr_min: float
    shift: float = 0.0

    def _angles(self) -> tuple[float, float, float]:
        """Return a at t=0, pi/2 - a at t=1, and the width of the range between them."""
        low = math.atan(math.exp(-(self.logsnr_max - self.shift) / 2.0))
        high = math.atan(math.exp((self.logsnr_min - self.shift) / 2.0))
        return low, high, math.pi / 2.0 - low - high

    @typechecked
    def logsnr(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return logsnr at time t."""
        low, high, width = self._angles()
        # cos(a) is the sine of pi/2 - a; in this form float32 keeps both ends exact.
        cos_a, sin_a = jnp.sin(high + (1.0 - t) * width), jnp.sin(low + t * width)
        return 2.0 * (jnp.log(cos_a) - jnp.log(sin_a)) + self.shift

    @typechecked
    def derivative(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return d logsnr / dt, which is negative."""
        low, high, width = self._angles()
        cot = 1.0 / jnp.tan(high + (1.0 - t) * width)
        return -2.0 * width * (cot + 1.0 / jnp.tan(low + t * width))

    @typechecked
    def inverse(self, logsnr: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the t at which the schedule reaches `logsnr`."""
        low, _, width = self._angles()
        return (jnp.arctan(jnp.exp(-(logsnr - self.shift) / 2.0)) - low) / width


Schedule = Linear | Cosine
SCHEDULES = {"linear": Linear, "cosine": Cosine}
