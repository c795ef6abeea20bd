"""Noise schedules and their inverses and derivatives."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import schedules
from ul.diffusion.schedules import Cosine, Linear

ALL = [
    Linear(5.0, -10.0),
    Cosine(12.0, -12.0),
    Cosine(12.0, -12.0, -2.0),
    Cosine(5.0, -10.0, 1.0),
]
T = jnp.linspace(0.0, 1.0, 101)


@pytest.mark.parametrize("schedule", ALL)
def test_a_schedule_starts_and_ends_exactly_at_its_limits(schedule):
    ends = schedule.logsnr(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(
        ends, [schedule.logsnr_max, schedule.logsnr_min], atol=1e-5
    )


@pytest.mark.parametrize("schedule", ALL)
def test_a_schedule_is_strictly_decreasing(schedule):
    assert bool(jnp.all(jnp.diff(schedule.logsnr(T)) < 0))


@pytest.mark.parametrize("schedule", ALL)
def test_the_derivative_equals_the_jvp(schedule):
    inner = T[1:-1]
    _, slope = jax.jvp(schedule.logsnr, (inner,), (jnp.ones_like(inner),))
    np.testing.assert_allclose(schedule.derivative(inner), slope, rtol=1e-4)


@pytest.mark.parametrize("schedule", ALL)
def test_the_inverse_inverts_the_schedule(schedule):
    np.testing.assert_allclose(schedule.inverse(schedule.logsnr(T)), T, atol=1e-5)


def test_the_shift_is_added_to_the_middle():
    middle = jnp.asarray([0.5])
    plain, shifted = Cosine(12.0, -12.0), Cosine(14.0, -10.0, 2.0)
    np.testing.assert_allclose(
        shifted.logsnr(middle) - plain.logsnr(middle), 2.0, atol=1e-5
    )


def test_every_kind_of_schedule_is_tested():
    assert {type(s) for s in ALL} == set(typing.get_args(schedules.Schedule))


def published_logsnr(schedule, t):
    """Return logsnr in float64: linear in t, or alpha = cos(a) with a linear in t."""

    def interpolate(start, end):
        return start + t * (end - start)

    if isinstance(schedule, Linear):
        return interpolate(schedule.logsnr_max, schedule.logsnr_min)
    ends = np.asarray([schedule.logsnr_max, schedule.logsnr_min]) - schedule.shift
    a = interpolate(*np.arctan(np.exp(-ends / 2)))
    return np.log(np.cos(a) ** 2 / np.sin(a) ** 2) + schedule.shift


@pytest.mark.parametrize("schedule", ALL)
def test_values_and_derivatives_equal_those_of_the_published_formula(schedule):
    t, step = np.linspace(0.0, 1.0, 41), 1e-6
    logsnr = schedule.logsnr(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(logsnr, published_logsnr(schedule, t), atol=2e-5)
    after, before = (published_logsnr(schedule, t + h) for h in (step, -step))
    # Near a cosine's ends the slope changes quickly, so rounding t to float32 costs 1e-5.
    np.testing.assert_allclose(
        schedule.derivative(jnp.asarray(t, jnp.float32)),
        (after - before) / (2 * step),
        rtol=1e-4,
    )


@pytest.mark.parametrize("schedule", ALL)
def test_the_slope_of_the_inverse_is_the_reciprocal(schedule):
    logsnr = schedule.logsnr(T)
    _, slope = jax.jvp(schedule.inverse, (logsnr,), (jnp.ones_like(logsnr),))
    np.testing.assert_allclose(slope * schedule.derivative(T), 1.0, rtol=1e-3)


BREAKS = (
    Break(
        "the derivative of the cosine schedule without its 2",
        "ul/diffusion/schedules.py",
        "return -2.0 * width *",
        "return -width *",
        "test_the_derivative_equals_the_jvp",
    ),
)
