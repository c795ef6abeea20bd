"""Noise schedules: t in [0, 1] to logsnr, strictly decreasing, both ends exact.

The loss does not depend on the shape, its variance does; the ends are part of the
model: logsnr_max is the least noise, logsnr_min the most.
"""

import dataclasses
import math

import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked


@dataclasses.dataclass(frozen=True)
class Linear:
    """logsnr falls linearly from logsnr_max at t=0 to logsnr_min at t=1.

    An end may also be an array [B]: each example's own.
    """

    logsnr_max: float
    logsnr_min: float

    @typechecked
    def logsnr(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return (1.0 - t) * self.logsnr_max + t * self.logsnr_min

    @typechecked
    def derivative(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """d logsnr / dt, negative."""
        return jnp.full_like(t, self.logsnr_min - self.logsnr_max)

    @typechecked
    def inverse(self, logsnr: Float[Array, "..."]) -> Float[Array, "..."]:
        """The t at which the schedule has `logsnr`."""
        return (self.logsnr_max - logsnr) / (self.logsnr_max - self.logsnr_min)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """alpha = cos, cut to a finite range, then shifted by a constant.

    logsnr = -2 log tan(a) + shift, a linear in t (Nichol & Dhariwal, Improved DDPM;
    the shift 2 log(64 / resolution) is that of Hoogeboom et al., simple diffusion).
    The ends are those after the shift.
    """

    logsnr_max: float
    logsnr_min: float
    shift: float = 0.0

    def _angles(self) -> tuple[float, float, float]:
        """a at t=0, pi/2 - a at t=1, and the width between."""
        low = math.atan(math.exp(-(self.logsnr_max - self.shift) / 2.0))
        high = math.atan(math.exp((self.logsnr_min - self.shift) / 2.0))
        return low, high, math.pi / 2.0 - low - high

    @typechecked
    def logsnr(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        low, high, width = self._angles()
        # cos(a) as a sine of the angle left: float32 keeps both ends exact.
        cos_a, sin_a = jnp.sin(high + (1.0 - t) * width), jnp.sin(low + t * width)
        return 2.0 * (jnp.log(cos_a) - jnp.log(sin_a)) + self.shift

    @typechecked
    def derivative(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """d logsnr / dt, negative."""
        low, high, width = self._angles()
        cot = 1.0 / jnp.tan(high + (1.0 - t) * width)
        return -2.0 * width * (cot + 1.0 / jnp.tan(low + t * width))

    @typechecked
    def inverse(self, logsnr: Float[Array, "..."]) -> Float[Array, "..."]:
        """The t at which the schedule has `logsnr`."""
        low, _, width = self._angles()
        return (jnp.arctan(jnp.exp(-(logsnr - self.shift) / 2.0)) - low) / width


Schedule = Linear | Cosine
SCHEDULES = {"linear": Linear, "cosine": Cosine}
