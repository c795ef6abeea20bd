"""The sampler of latents, with denoisers that are known exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.lib.breaks import Break
from ul.diffusion import gaussian
from ul.diffusion.samplers import Sampler
from ul.diffusion.schedules import Linear
from ul.stages.codec import LatentSampler

MEANS, STD = jnp.asarray([0.7, 0.1, -0.2]), 0.35  # of two classes, and of no label
GUIDING_MEANS = jnp.asarray([-0.3, -0.2, 9.0])
CONDITION, ROW, KEY = (
    {"label": jnp.asarray([0, 1, 0, 1])},
    jnp.arange(4),
    jax.random.key(0),
)


def denoise(means, z_t, logsnr, condition, key):
    """E[x | z_t] for x ~ N(means[label], STD^2): linear in z_t."""
    a, s = (gaussian.expand(f(logsnr), z_t) for f in (gaussian.alpha, gaussian.sigma))
    mean = gaussian.expand(means[condition["label"]], z_t)
    return mean + a * STD**2 / (a**2 * STD**2 + s**2) * (z_t - a * mean)


SAMPLER = LatentSampler(
    denoise_latent=denoise,
    sampler=Sampler("dpmpp_2m", 25, Linear(5.0, -10.0)),
    latent_shape=(2, 2, 1),
    null={"label": 2},
    interval=(-10.0, 5.0),
)
GUIDED = dataclasses.replace(SAMPLER, denoise_guiding=denoise)


def test_a_guide_stands_where_the_null_label_stood():
    """Gaussians extrapolate: guided by another's mean is sampling from the mean
    m_g + w (m - m_g), which one network without guidance can do as well."""
    scale = 3.0
    got = GUIDED.sample(MEANS, CONDITION, ROW, KEY, scale, GUIDING_MEANS)
    mean = GUIDING_MEANS + scale * (MEANS - GUIDING_MEANS)
    want = SAMPLER.sample(mean, CONDITION, ROW, KEY, 1.0)
    np.testing.assert_allclose(got, want, atol=2e-5)  # float32, 25 steps
    assert np.abs(got - SAMPLER.sample(MEANS, CONDITION, ROW, KEY, scale)).max() > 0.1


def test_at_scale_one_the_guide_is_not_evaluated():
    def never(*_):
        raise AssertionError("evaluated")

    unused = dataclasses.replace(SAMPLER, denoise_guiding=never)
    got = unused.sample(MEANS, CONDITION, ROW, KEY, 1.0)
    np.testing.assert_array_equal(got, SAMPLER.sample(MEANS, CONDITION, ROW, KEY, 1.0))


BREAKS = (
    Break(
        "a guiding model with the parameters of the guided one",
        "ul/stages/codec.py",
        "denoiser(self.denoise_guiding, guiding, condition)",
        "denoiser(self.denoise_guiding, params, condition)",
        "test_a_guide_stands_where_the_null_label_stood",
    ),
)
