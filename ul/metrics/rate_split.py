"""The rate of the latent, split by log-SNR, by latent channel and by position."""

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
from ul.objectives.denoising import denoising_loss_elements
from ul.objectives.joint import JointNetworks
from ul.objectives.noise import BatchNoise

NUM_LOGSNR_BINS = 30


@flax.struct.dataclass
class RateSplitNats:
    """The prior's term of each example in nats, split in three ways with the same sum.

    by_logsnr: [B, NUM_LOGSNR_BINS], bins of equal width from the schedule's logsnr_max
      down to its logsnr_min.
    by_channel: [B, c].
    by_position: [B, *grid], the grid of the latents.
    terminal: [B], the KL of the noisy end, which is in none of the three.
    """

    by_logsnr: jax.Array
    by_channel: jax.Array
    by_position: jax.Array
    terminal: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="num_draws")
def split_rate_nats(
    networks: JointNetworks,
    schedule: Schedule,
    params,
    image,
    row,
    stratum,
    key,
    *,
    num_draws: int,
) -> RateSplitNats:
    """Return the split rate of uint8 images [B, *grid, C], averaged over `num_draws` draws.

    Each draw has its own times and noises, which depend on the key and on the `row` and
    `stratum` [B] of an image alone.
    """
    z = networks.encode(params, arrays.scale_pixels(image)).astype(jnp.float32)
    span = schedule.logsnr_max - schedule.logsnr_min

    def one_draw(index):
        batch_noise = BatchNoise(key, key, row, stratum).for_draw(index, num_draws)
        t = batch_noise.time("prior_time")
        nats = denoising_loss_elements(
            lambda z_t, logsnr: networks.denoise_latent(params, z_t, logsnr, None),
            z,
            t,
            batch_noise.normal("prior_noise", z),
            schedule=schedule,
            weight=weightings.elbo,
        )
        depth = (schedule.logsnr_max - schedule.logsnr(t)) / span
        bin_index = jnp.clip(jnp.floor(depth * NUM_LOGSNR_BINS), 0, NUM_LOGSNR_BINS - 1)
        in_bin = bin_index[:, None] == jnp.arange(NUM_LOGSNR_BINS)[None]
        by_logsnr = in_bin.astype(jnp.float32) * gaussian.sum_elements(nats)[:, None]
        return by_logsnr, jnp.sum(nats, range(1, z.ndim - 1)), jnp.sum(nats, -1)

    by_logsnr, by_channel, by_position = jax.tree.map(
        lambda values: jnp.mean(values, 0), jax.lax.map(one_draw, jnp.arange(num_draws))
    )
    terminal = gaussian.kl_standard_normal(z, schedule.logsnr_min)
    return RateSplitNats(by_logsnr, by_channel, by_position, terminal)


@dataclasses.dataclass(frozen=True)
class RateSplit:
    """The split rate in bits per pixel, with standard errors over the examples.

    logsnr: [NUM_LOGSNR_BINS], the center of each bin.
    bpp_by_logsnr: [NUM_LOGSNR_BINS], bits/pixel per unit of log-SNR; mean over examples.
    bpp_by_channel: [c], bits/pixel; mean over examples.
    bpp_by_position: [N, *grid], bits/pixel at each position of each example.
    terminal_bpp: bits/pixel of the noisy end; mean over examples.
    """

    logsnr: np.ndarray
    bpp_by_logsnr: np.ndarray
    bpp_by_logsnr_sem: np.ndarray
    bpp_by_channel: np.ndarray
    bpp_by_channel_sem: np.ndarray
    bpp_by_position: np.ndarray
    terminal_bpp: float


def average_rate_split(
    nats: RateSplitNats, schedule: Schedule, num_pixels: int
) -> RateSplit:
    """Average `nats` (host arrays of all examples), in bits per pixel of `num_pixels`."""
    nats_per_bpp = num_pixels * math.log(2.0)
    sqrt_count = math.sqrt(len(nats.terminal))
    bin_width = (schedule.logsnr_max - schedule.logsnr_min) / NUM_LOGSNR_BINS
    num_positions = math.prod(nats.by_position.shape[1:])

    def mean_and_sem(values, scale):
        return values.mean(0) / scale, values.std(0, ddof=1) / sqrt_count / scale

    by_logsnr, by_logsnr_sem = mean_and_sem(nats.by_logsnr, nats_per_bpp * bin_width)
    by_channel, by_channel_sem = mean_and_sem(nats.by_channel, nats_per_bpp)
    return RateSplit(
        logsnr=schedule.logsnr_max - bin_width * (np.arange(NUM_LOGSNR_BINS) + 0.5),
        bpp_by_logsnr=by_logsnr,
        bpp_by_logsnr_sem=by_logsnr_sem,
        bpp_by_channel=by_channel,
        bpp_by_channel_sem=by_channel_sem,
        bpp_by_position=np.asarray(nats.by_position) * num_positions / nats_per_bpp,
        terminal_bpp=float(nats.terminal.mean() / nats_per_bpp),
    )


def upsample_to_image(by_position: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Repeat the cells of maps [N, h, w] over the pixels [H, W] that they stand for."""
    rows, columns = shape[0] // by_position.shape[1], shape[1] // by_position.shape[2]
    return by_position.repeat(rows, axis=1).repeat(columns, axis=2)
