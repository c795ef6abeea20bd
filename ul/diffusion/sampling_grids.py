"""Grids of log-SNR for samplers, from pure noise to the largest log-SNR.

A grid is a function (schedule, num_steps) -> logsnr [num_steps + 1], increasing. Its ends
are those of the schedule, or narrower ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import ConfigError
from ul.diffusion.schedules import Schedule

# Weight of the uniform part of an adaptive grid, which bounds its widest step.
UNIFORM_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Grid:
    """The ends of a grid. None stands for the end of the schedule."""

    logsnr_max: float | None = None
    logsnr_min: float | None = None

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        """Return the smallest and the largest logsnr of the grid.

        Raises:
          ConfigError: they are not in order, or outside of the schedule.
        """
        low, high = self.logsnr_min, self.logsnr_max
        low = schedule.logsnr_min if low is None else low
        high = schedule.logsnr_max if high is None else high
        if not schedule.logsnr_min <= low < high <= schedule.logsnr_max:
            raise ConfigError(
                "sampling.logsnr_min and sampling.logsnr_max must be in order and between "
                f"the ends of the schedule, {schedule.logsnr_min:g} and "
                f"{schedule.logsnr_max:g}; got {low:g} and {high:g}."
            )
        return low, high

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class UniformTime(Grid):
    """Uniform steps in the time of the training schedule."""

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        first, last = jnp.float32(1.0), jnp.float32(0.0)
        if self.logsnr_min is not None:
            first = schedule.inverse(jnp.float32(self.logsnr_min))
        if self.logsnr_max is not None:
            last = schedule.inverse(jnp.float32(self.logsnr_max))
        return schedule.logsnr(
            jnp.linspace(first, last, num_steps + 1, dtype=jnp.float32)
        )


@dataclasses.dataclass(frozen=True)
class UniformLogsnr(Grid):
    """Uniform steps in log-SNR."""

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        return jnp.linspace(*self.ends(schedule), num_steps + 1, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class SegmentStarts(Grid):
    """The starts of segments of equal width in log-SNR, for a decoder with one call for each.

    The grid has num_segments points; the last segment, from the last of them to logsnr_max,
    is left to the decoder's final prediction.
    """

    num_segments: int = 1

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        """Return the smallest and the largest logsnr of the grid, as `Grid.ends`."""
        low, high = super().ends(schedule)
        return low, high - (high - low) / self.num_segments

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        assert num_steps == self.num_segments - 1
        return jnp.linspace(*self.ends(schedule), num_steps + 1, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Adaptive(Grid):
    """Steps that are narrow where the information per unit of log-SNR rises.

    The information is e^l / 2 E||x - x_hat||^2 (Guo, Shamai & Verdu 2005). For a Gaussian
    direction of variance s^2 it is e^l s^2 / (2 + 2 e^l s^2) nats, which rises where x_hat
    changes most. The density of the steps is UNIFORM_SHARE of a uniform one, and else the
    normalized square root of the slope.

    nats_per_logsnr: the information in bins of equal width from the schedule's logsnr_min
    to its logsnr_max; its scale does not matter. If it is empty, the steps are uniform.
    """

    nats_per_logsnr: tuple[float, ...] = ()

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        low, high = self.ends(schedule)
        measured = self.nats_per_logsnr
        nats = np.asarray(measured if len(measured) > 1 else (1.0, 1.0))
        width = (schedule.logsnr_max - schedule.logsnr_min) / len(nats)
        centers = schedule.logsnr_min + width * (np.arange(len(nats)) + 0.5)
        slope = np.convolve(np.diff(nats), (0.25, 0.5, 0.25), "same")
        # Between the centers of two bins; no slope is known beyond the outer ones.
        root = np.sqrt(np.concatenate(([0.0], np.maximum(slope, 0.0), [0.0])))
        inner = centers[(centers > low) & (centers < high)]
        points = np.concatenate(([low], inner, [high]))
        middles = (points[1:] + points[:-1]) / 2.0
        density = root[np.searchsorted(centers, middles)]
        mean = np.sum(density * np.diff(points)) / (high - low)
        uneven = density / mean if mean > 0.0 else np.ones_like(density)
        density = UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * uneven
        mass = np.append(0.0, np.cumsum(density * np.diff(points)))
        grid = np.interp(np.linspace(0.0, mass[-1], num_steps + 1), mass, points)
        grid[0], grid[-1] = low, high
        return jnp.asarray(grid, jnp.float32)


GRIDS: dict[str, type[Grid]] = {
    "schedule": UniformTime,
    "logsnr": UniformLogsnr,
    "adaptive": Adaptive,
}
