import jax.numpy as jnp
import numpy as np

from ul.diffusion.guidance import classifier_free

Z = jnp.ones((3, 2))
LOGSNR = jnp.asarray([-5.0, 0.0, 5.0])


def conditional(z, logsnr):
    return z * 3.7


def unconditional(z, logsnr):
    return z * 1.3


def guided(scale, *interval):
    return classifier_free(conditional, unconditional, scale, *interval)(Z, LOGSNR)


def test_scale_one_is_the_conditional_denoiser():
    np.testing.assert_array_equal(guided(1.0), conditional(Z, LOGSNR))


def test_scale_zero_is_the_unconditional_denoiser():
    np.testing.assert_allclose(guided(0.0), unconditional(Z, LOGSNR), rtol=1e-6)


def test_scale_two_goes_as_far_again():
    np.testing.assert_allclose(guided(2.0), 3.7 + (3.7 - 1.3), rtol=1e-6)


def test_outside_the_interval_nothing_is_guided():
    got = guided(2.0, (-1.0, 1.0))
    np.testing.assert_array_equal(got[0], conditional(Z, LOGSNR)[0])
    np.testing.assert_array_equal(got[2], conditional(Z, LOGSNR)[2])
    np.testing.assert_allclose(got[1], 3.7 + (3.7 - 1.3), rtol=1e-6)
