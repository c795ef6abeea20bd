import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.diffusion.schedules import Cosine, Linear

ALL = [
    Linear(5.0, -10.0),
    Cosine(12.0, -12.0),
    Cosine(12.0, -12.0, -2.0),
    Cosine(5.0, -10.0, 1.0),
]
T = jnp.linspace(0.0, 1.0, 101)


@pytest.mark.parametrize("schedule", ALL)
def test_both_ends_are_exact(schedule):
    ends = schedule.logsnr(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(
        ends, [schedule.logsnr_max, schedule.logsnr_min], atol=1e-5
    )


@pytest.mark.parametrize("schedule", ALL)
def test_strictly_decreasing(schedule):
    assert bool(jnp.all(jnp.diff(schedule.logsnr(T)) < 0))


@pytest.mark.parametrize("schedule", ALL)
def test_derivative_is_that_of_the_schedule(schedule):
    inner = T[1:-1]
    _, slope = jax.jvp(schedule.logsnr, (inner,), (jnp.ones_like(inner),))
    np.testing.assert_allclose(schedule.derivative(inner), slope, rtol=1e-4)


@pytest.mark.parametrize("schedule", ALL)
def test_inverse(schedule):
    np.testing.assert_allclose(schedule.inverse(schedule.logsnr(T)), T, atol=1e-5)


def test_the_shift_moves_the_middle():
    middle = jnp.asarray([0.5])
    plain, shifted = Cosine(12.0, -12.0), Cosine(14.0, -10.0, 2.0)
    np.testing.assert_allclose(
        shifted.logsnr(middle) - plain.logsnr(middle), 2.0, atol=1e-5
    )
