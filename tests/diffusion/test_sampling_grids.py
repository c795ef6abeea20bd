"""Grids of log-SNR for samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import mixture
from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.diffusion import gaussian
from ul.diffusion.sampling_grids import GRIDS, Adaptive, UniformLogsnr, UniformTime
from ul.diffusion.schedules import Cosine, Linear
from ul.metrics import logsnr_curve

SCHEDULE = Cosine(12.0, -12.0)
ENDS = 9.0, -8.0


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ends", [(None, None), ENDS])
def test_a_grid_rises_from_one_end_to_the_other(name, ends):
    grid = GRIDS[name](*ends)
    logsnr = np.asarray(grid(SCHEDULE, 7))
    assert logsnr.shape == (8,) and np.all(np.diff(logsnr) > 0)
    low, high = grid.ends(SCHEDULE)
    np.testing.assert_allclose(logsnr[[0, -1]], [low, high], rtol=1e-5)
    assert (high, low) == (ENDS if ends[0] else (12.0, -12.0))


def test_the_grid_of_training_is_even_in_time():
    time = SCHEDULE.inverse(UniformTime(*ENDS)(SCHEDULE, 9))
    np.testing.assert_allclose(np.diff(time), np.diff(time)[0], rtol=1e-4)
    logsnr = UniformTime()(Linear(5.0, -10.0), 9)
    np.testing.assert_allclose(
        logsnr, UniformLogsnr()(Linear(5.0, -10.0), 9), rtol=1e-5
    )


@pytest.mark.parametrize("ends", [(13.0, -8.0), (9.0, -13.0), (-8.0, 9.0), (1.0, 1.0)])
def test_ends_outside_of_the_schedule_are_refused(ends):
    with pytest.raises(
        ConfigError, match="between the ends of the schedule, -12 and 12"
    ):
        UniformLogsnr(*ends).ends(SCHEDULE)


def gaussian_curve(logsnr_0, num_bins=240):
    """Return the bits per log-SNR of a Gaussian of variance e^-logsnr_0."""
    centers = np.linspace(-12, 12, 2 * num_bins + 1)[1::2]
    return tuple(0.5 / (1 + np.exp(logsnr_0 - centers)))


def test_an_adaptive_grid_is_narrow_where_the_bits_rise():
    logsnr = np.asarray(Adaptive(*ENDS, gaussian_curve(2.0))(SCHEDULE, 16))
    width, middle = np.diff(logsnr), (logsnr[1:] + logsnr[:-1]) / 2
    assert abs(middle[np.argmin(width)] - 2.0) < 0.5
    assert width.max() > 3 * width.min()
    # The even share bounds the widest step.
    assert width.max() < (9.0 + 8.0) / 16 / 0.25


@pytest.mark.parametrize("curve", [(), (1.0,), (0.0,) * 30, (2.0,) * 30])
def test_without_a_slope_an_adaptive_grid_is_even(curve):
    np.testing.assert_allclose(
        Adaptive(*ENDS, curve)(SCHEDULE, 8),
        UniformLogsnr(*ENDS)(SCHEDULE, 8),
        rtol=1e-5,
    )


def test_the_curve_of_a_gaussian_is_known():
    """e^l / 2 times the error e^-l0 sigmoid(l0 - l) of x ~ N(0, e^-l0)."""
    x = np.exp(-1.0) * np.random.default_rng(0).normal(size=(4096, 4))

    def denoise(x_t, logsnr):
        a, s = (
            gaussian.expand(f(logsnr), x_t) for f in (gaussian.alpha, gaussian.sigma)
        )
        return a * jnp.exp(-2.0) / (a**2 * jnp.exp(-2.0) + s**2) * x_t

    nats = logsnr_curve.nats_per_logsnr(
        denoise, jnp.float32(x), jnp.arange(4096), jax.random.key(0), SCHEDULE
    )
    expected = gaussian_curve(2.0, logsnr_curve.NUM_BINS)
    np.testing.assert_allclose(nats.mean(0) / 4, expected, rtol=0.05)


def error(grid, method, num_steps):
    return mixture.flow_error(SCHEDULE, method, num_steps, grid)


def test_2m_on_few_even_steps_is_better_than_ddim_on_many_of_the_schedule():
    """The adaptive grid is better still; 2M on the schedule's own grid is bad."""
    assert error(UniformLogsnr(*ENDS), "dpmpp_2m", 20) < error(
        UniformTime(), "ddim", 50
    )
    even = error(UniformLogsnr(*ENDS), "dpmpp_2m", 16)
    assert (
        error(Adaptive(*ENDS, mixture.nats_per_logsnr(SCHEDULE)), "dpmpp_2m", 16)
        < 0.8 * even
    )
    assert error(UniformTime(), "dpmpp_2m", 16) > 2 * even


BREAKS = (
    Break(
        "an adaptive grid that is wide where the bits rise",
        "ul/diffusion/sampling_grids.py",
        "density = UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * uneven",
        "density = 1.0 / (UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * uneven)",
        "test_an_adaptive_grid_is_narrow_where_the_bits_rise",
    ),
    Break(
        "a curve without its factor e^l",
        "ul/metrics/logsnr_curve.py",
        "jnp.exp(center) / 2.0 * squared",
        "0.5 * squared",
        "test_the_curve_of_a_gaussian_is_known",
    ),
)
