"""Moment matching on Gaussian data, where the teacher is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lib.breaks import Break
from tests.lib.gaussian_decoder import VARIANCE, Student, make_batch, sample, teach
from ul.diffusion import gaussian
from ul.objectives.moment_matching import MomentMatching
from ul.objectives.segments import MAX_WEIGHT


@pytest.mark.parametrize("noise", ["fresh", "posterior"])
def test_x_s_is_drawn_where_the_segment_leads(noise):
    settings = MomentMatching(2, noise=noise)
    batch = make_batch(settings, jax.random.key(0), teach)
    assert set(np.unique(batch["logsnr_t"])) == {-8.0, 0.5}
    into = batch["logsnr_s"] - batch["logsnr_t"]
    assert 0.0 < into.min() < 0.5 and 8.0 < into.max() <= 8.5
    x = teach(batch["x_t"], batch["logsnr_t"])
    np.testing.assert_allclose(batch["x_student"], x, rtol=1e-5)
    ends = batch["logsnr_t"], batch["logsnr_s"]
    mean, variance = gaussian.posterior(batch["x_t"], x, *ends)
    if noise == "fresh":
        mean = gaussian.corrupt(x, jnp.zeros_like(x), batch["logsnr_s"])
        variance = gaussian.expand(gaussian.sigma(batch["logsnr_s"]) ** 2, x)
    z = (batch["x_s"] - mean) / jnp.sqrt(variance)
    np.testing.assert_allclose([z.mean(), z.var()], [0.0, 1.0], atol=0.07)
    expected = teach(batch["x_s"], batch["logsnr_s"])
    np.testing.assert_allclose(batch["x_teacher"], expected, rtol=1e-5)


def test_the_gradients_are_those_of_the_paper():
    """Equation 6 has the gradient w gap; equation 5 does not reach the student."""
    settings, student = MomentMatching(2), Student()
    batch = make_batch(settings, jax.random.key(0), teach)
    params = {"decoder": student.init(), "auxiliary": {"c": student.init()["c"] * 1.1}}

    def loss(params):
        key = jax.random.key(0)
        return settings.loss(params, batch, key, 0, denoise_image=student).loss.sum()

    def published(params):
        x = student(params, batch["x_t"], batch["logsnr_t"], None, None)
        at_s = (batch["x_s"], batch["logsnr_s"], None, None)
        x_hat = student({"decoder": params["auxiliary"]}, *at_s)
        weight = jnp.minimum(1 + jnp.exp(batch["logsnr_s"]), MAX_WEIGHT)[:, None] / 2
        gap = jax.lax.stop_gradient(x_hat - batch["x_teacher"])
        x_student = jax.lax.stop_gradient(batch["x_student"])
        errors = (x_student - x_hat) ** 2 + (batch["x_teacher"] - x_hat) ** 2
        return jnp.sum(weight * (x * gap + errors))

    ours, theirs = jax.grad(loss)(params), jax.grad(published)(params)
    for name in settings.NETWORKS:
        np.testing.assert_allclose(
            ours[name]["c"], theirs[name]["c"], rtol=1e-3, atol=1e-2
        )
        assert np.abs(ours[name]["c"]).max() > 1.0


def train(settings, steps, lr):
    """A student and its auxiliary denoiser, from the teacher's weights."""
    student = Student()
    tx = optax.adam(optax.cosine_decay_schedule(lr, steps), b1=0.5)

    def update(carry, i):
        params, opt = carry
        key = jax.random.fold_in(jax.random.key(2), i)

        def own(x_t, logsnr, z_0):
            return student(params, x_t, logsnr, z_0, None)

        def loss(params):
            terms = settings.loss(params, batch, key, i, denoise_image=student)
            return jnp.mean(terms.loss)

        batch = make_batch(settings, key, own)
        updates, opt = tx.update(jax.grad(loss)(params), opt)
        return (optax.apply_updates(params, updates), opt), None

    params = {name: student.init() for name in settings.NETWORKS}
    carry = params, tx.init(params)
    params = jax.jit(lambda c: jax.lax.scan(update, c, jnp.arange(steps))[0][0])(carry)
    return lambda x_t, logsnr: student(params, x_t, logsnr, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("num_calls", [1, 2])
def test_training_reaches_mean_and_variance_of_the_data(num_calls):
    """Samples of the teacher with as few calls have too little variance."""
    settings = MomentMatching(num_calls)
    x = sample(settings, train(settings, steps=1500, lr=0.03))
    np.testing.assert_allclose(x.var(0), VARIANCE[0], rtol=0.1)
    np.testing.assert_allclose(x.mean(0) / jnp.sqrt(VARIANCE[0]), 0.0, atol=0.1)
    assert np.all(sample(settings, teach).var(0) < 0.95 * VARIANCE[0])


@pytest.mark.slow
def test_two_calls_with_noise_of_the_posterior_have_another_variance():
    """Why `noise` is "fresh" by default."""
    settings = MomentMatching(2, noise="posterior")
    x = sample(settings, train(settings, steps=1500, lr=0.03))
    assert x.var(0)[3] < 0.8 * VARIANCE[0, 3]


BREAKS = (
    Break(
        "a student that is taught the mean of the data",
        "ul/objectives/moment_matching.py",
        "target = jax.lax.stop_gradient(x) - gaussian.expand(weight, x) * gap",
        'target = batch["x_teacher"]',
        "test_training_reaches_mean_and_variance_of_the_data",
    ),
    Break(
        "an image without the noise of the posterior",
        "ul/objectives/moment_matching.py",
        "x_s = mean + jnp.sqrt(variance) * eps",
        "x_s = mean",
        "test_x_s_is_drawn_where_the_segment_leads",
    ),
)
