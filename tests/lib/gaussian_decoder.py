"""A decoder of Gaussian data, its ideal teacher and a student of one number per element.

Given z_0 the data are N(0, v): the teacher is a v / (a^2 v + s^2) x_t, and its flow keeps
x_t / sqrt(a^2 v + s^2).
"""

import jax
import jax.numpy as jnp

from ul.diffusion import gaussian
from ul.diffusion.samplers import Sampler
from ul.diffusion.sampling_grids import SegmentStarts
from ul.diffusion.schedules import Cosine
from ul.objectives import segments
from ul.stages.codec import DiffusionDecoder

SCHEDULE = Cosine(12.0, -12.0)
VARIANCE = jnp.asarray([[0.02, 0.1, 0.3, 0.8]])
B = 512


def std_of_x_t(logsnr):
    """The standard deviation of x_t."""
    signal = jax.nn.sigmoid(logsnr)
    return jnp.sqrt(signal * VARIANCE + 1.0 - signal)


def teach(x_t, logsnr, z_0=None):
    logsnr = gaussian.expand(logsnr, x_t)
    return gaussian.alpha(logsnr) * VARIANCE / std_of_x_t(logsnr) ** 2 * x_t


def make_batch(settings, key, student=teach, progress=1.0):
    """A batch with the targets of the exact teacher; 0..255 stand for the data."""
    x = jnp.sqrt(VARIANCE) * jax.random.normal(key, (B, 4))
    batch = {
        "image": (x + 1.0) * 127.5,
        "z_clean": jnp.zeros((B, 1)),
        "row": jnp.arange(B),
        "stratum": jnp.arange(B) / B,
    }
    return segments.add_targets(settings, teach, student, batch, key, progress, 5.0)


def sample(settings, student):
    """Samples of a student as the stage draws them, [4096, 4]."""
    ends, calls = (settings.logsnr_max, settings.logsnr_min), settings.num_calls
    grid = SegmentStarts(*ends, num_segments=calls)
    sampler = Sampler(settings.sampler, calls - 1, SCHEDULE, grid)
    decoder = DiffusionDecoder(
        lambda params, x_t, logsnr, z_0, key: student(x_t, logsnr), sampler, (4,)
    )
    return decoder({}, jnp.zeros((4096, 1)), jnp.arange(4096), jax.random.key(1))


class Student:
    """x_hat = c x_t, with a table of c by log-SNR for each element."""

    knots = jnp.linspace(-8.0, 9.0, 69)

    def init(self):
        return {"c": teach(jnp.ones((69, 4)), self.knots)}

    def __call__(self, params, x_t, logsnr, z_0, key):
        interpolate = jax.vmap(jnp.interp, in_axes=(None, None, 1), out_axes=1)
        return interpolate(logsnr, self.knots, params["decoder"]["c"]) * x_t
