"""Grids of log-SNR on which samplers move from pure noise to the least noise.

A grid is a function (schedule, num_steps) -> logsnr [num_steps + 1], increasing. Its ends
are those of the schedule, or narrower ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import ConfigError
from ul.diffusion.schedules import Schedule

# Weight of the even part of an adaptive grid, which bounds its widest step.
EVEN_SHARE = 0.25


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
class EvenInTime(Grid):
    """Steps that are even in the time of the training schedule."""

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
class EvenInLogsnr(Grid):
    """Steps of equal width in log-SNR."""

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        return jnp.linspace(*self.ends(schedule), num_steps + 1, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Adaptive(Grid):
    """Steps that are narrow where the run's bits per log-SNR rise.

    For a Gaussian direction of variance s^2 these bits are e^l s^2 / (2 + 2 e^l s^2): they
    rise where the denoiser begins to see the direction, and x_hat changes most there. The
    density of the steps is the square root of the slope, besides an even share. On an exact
    mixture its error was the smallest of all grids (experiments/RESULTS.md).

    curve: bits per unit of log-SNR in bins of equal width from the schedule's logsnr_min to
    its logsnr_max, in any unit. It is empty if the run has not measured it yet; the steps
    are then even in log-SNR.
    """

    curve: tuple[float, ...] = ()

    def __call__(self, schedule: Schedule, num_steps: int) -> jax.Array:
        """Return the logsnr of every point of the grid, [num_steps + 1]."""
        low, high = self.ends(schedule)
        curve = np.asarray(self.curve if len(self.curve) > 1 else (1.0, 1.0))
        width = (schedule.logsnr_max - schedule.logsnr_min) / len(curve)
        centers = schedule.logsnr_min + width * (np.arange(len(curve)) + 0.5)
        slope = np.convolve(np.diff(curve), (0.25, 0.5, 0.25), "same")
        # Between the centers of two bins; no slope is known beyond the outer ones.
        root = np.sqrt(np.concatenate(([0.0], np.maximum(slope, 0.0), [0.0])))
        inner = centers[(centers > low) & (centers < high)]
        points = np.concatenate(([low], inner, [high]))
        middles = (points[1:] + points[:-1]) / 2.0
        density = root[np.searchsorted(centers, middles)]
        mean = np.sum(density * np.diff(points)) / (high - low)
        uneven = density / mean if mean > 0.0 else np.ones_like(density)
        density = EVEN_SHARE + (1.0 - EVEN_SHARE) * uneven
        mass = np.append(0.0, np.cumsum(density * np.diff(points)))
        grid = np.interp(np.linspace(0.0, mass[-1], num_steps + 1), mass, points)
        grid[0], grid[-1] = low, high
        return jnp.asarray(grid, jnp.float32)


GRIDS: dict[str, type[Grid]] = {
    "schedule": EvenInTime,
    "logsnr": EvenInLogsnr,
    "adaptive": Adaptive,
}
