"""Where the bits go: a rate split by noise level, latent channel and position."""

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.denoising import elements
from ul.objectives.joint import Networks
from ul.objectives.noise import Draws

LEVELS = 30


@flax.struct.dataclass
class Bits:
    """The prior's term of each example in nats, three times split; every split has the
    same sum. `terminal` stands apart.

    level [B, LEVELS]: by equal widths of logsnr, from the schedule's logsnr_max down.
    channel [B, c]; place [B, *grid], the latents'; terminal [B].
    """

    level: jax.Array
    channel: jax.Array
    place: jax.Array
    terminal: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="draws")
def split(
    networks: Networks,
    schedule: Schedule,
    params,
    image,
    row,
    stratum,
    key,
    *,
    draws: int,
) -> Bits:
    """The mean of `draws` times and noises of each example, uint8 [B, *grid, C]."""
    z = networks.encode(params, arrays.to_unit(image)).astype(jnp.float32)
    span = schedule.logsnr_max - schedule.logsnr_min

    def once(number):
        drawn = Draws(key, key, row, stratum).repeated(number, draws)
        t = drawn.time("prior_time")
        nats = elements(
            lambda z_t, logsnr: networks.denoise_latent(params, z_t, logsnr, None),
            z,
            t,
            drawn.noise("prior_noise", z),
            schedule=schedule,
            weight=weightings.elbo,
        )
        below = (schedule.logsnr_max - schedule.logsnr(t)) / span
        bin_ = jnp.clip(jnp.floor(below * LEVELS), 0, LEVELS - 1)
        inside = (bin_[:, None] == jnp.arange(LEVELS)[None]).astype(jnp.float32)
        level = inside * gaussian.sum_elements(nats)[:, None]
        return level, jnp.sum(nats, range(1, z.ndim - 1)), jnp.sum(nats, -1)

    level, channel, place = jax.tree.map(
        lambda values: jnp.mean(values, 0), jax.lax.map(once, jnp.arange(draws))
    )
    terminal = gaussian.kl_standard_normal(z, schedule.logsnr_min)
    return Bits(level, channel, place, terminal)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Means over examples, in bits: what a picture and a record hold.

    logsnr [LEVELS]: the middle of each level. level: bits/pixel per unit of logsnr.
    channel [c], terminal: bits/pixel. place [N, *grid]: bits/pixel at each place.
    """

    logsnr: np.ndarray
    level: np.ndarray
    level_sem: np.ndarray
    channel: np.ndarray
    channel_sem: np.ndarray
    place: np.ndarray
    terminal: float


def shares(found: Bits, schedule: Schedule, pixels: int) -> Shares:
    """Host arrays of `split` over all examples, in bits per pixel of `pixels`."""
    unit, count = pixels * math.log(2.0), math.sqrt(len(found.terminal))
    width = (schedule.logsnr_max - schedule.logsnr_min) / LEVELS
    cells = math.prod(found.place.shape[1:])

    def mean(values, scale):
        return values.mean(0) / scale, values.std(0, ddof=1) / count / scale

    level, level_sem = mean(found.level, unit * width)
    channel, channel_sem = mean(found.channel, unit)
    return Shares(
        logsnr=schedule.logsnr_max - width * (np.arange(LEVELS) + 0.5),
        level=level,
        level_sem=level_sem,
        channel=channel,
        channel_sem=channel_sem,
        place=np.asarray(found.place) * cells / unit,
        terminal=float(found.terminal.mean() / unit),
    )


def enlarged(place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Maps [N, h, w] at the images' [H, W]: every cell over the pixels it stands for."""
    rows, columns = shape[0] // place.shape[1], shape[1] // place.shape[2]
    return place.repeat(rows, axis=1).repeat(columns, axis=2)
