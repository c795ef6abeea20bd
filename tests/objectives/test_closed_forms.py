"""The loss of stage 1 on Gaussian data, whose value and optimum are known.

Pixel i is x ~ N(0, s_i^2), z_clean = g_i x, and the denoisers are exact for any gains:
E[z_clean | z_t] with v = g^2 s^2, and E[x | x_t, z_0] by adding precisions,
P = 1/s^2 + g^2 e^l0. Then, by direction, over logsnr from l1 to l0 and from a to b,
  L_z = 1/2 log((1 + v e^l0) / (1 + v e^l1)) + (sigmoid(l1) (v - 1) + softplus(l1)) / 2
  L_x = c Int_a^b sigmoid(bias - l) (e^l / 2) / (P + e^l) dl.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

from tests.lib.breaks import Break
from ul.diffusion import gaussian, waterfilling, weightings
from ul.diffusion.schedules import Cosine, Linear
from ul.objectives.joint import JointNetworks, joint_loss

SHAPE = (2, 2, 1)
PRIOR, DECODER = Linear(5.0, -10.0), Linear(12.0, -12.0)


def ideal_networks(gains, stds, logsnr_0):
    """Return an encoder with one gain per pixel, `params`, and exact denoisers.

    At the optimal denoisers the loss is stationary in them. So they need no gradient of
    their own for the gradient of the encoder to be the full one.
    """
    gains = jax.lax.stop_gradient(gains)
    variance = (gains * stds) ** 2
    precision = 1 / stds**2 + gains**2 * jnp.exp(logsnr_0)

    def scales(logsnr, like):
        return (gaussian.expand(f(logsnr), like) for f in SCALES)

    def denoise_latent(params, z_t, logsnr, key):
        a, s = scales(logsnr, z_t)
        return a * variance / (a**2 * variance + s**2) * z_t

    def denoise_image(params, x_t, logsnr, z_0, key):
        (a, s), (a_0, s_0) = scales(logsnr, x_t), scales(logsnr_0, z_0)
        evidence = gains * a_0 / s_0**2 * z_0 + a / s**2 * x_t
        return evidence / (precision + (a / s) ** 2)

    return JointNetworks(lambda params, x: params * x, denoise_latent, denoise_image)


SCALES = gaussian.alpha, gaussian.sigma


def terms(
    gains, stds, x, key, *, factor, bias, prior, decoder, row=None, num_strata=None
):
    """Return `joint_loss` of x [B, 2, 2, 1], any floats; gains and stds are [4]."""
    gains, stds = (jnp.reshape(v, (1, *SHAPE)) for v in (gains, stds))
    row = jnp.arange(len(x)) if row is None else row
    batch = dict(
        image=(x + 1.0) * 127.5,
        row=row,
        stratum=row / (num_strata or len(x)),
        label=row,
    )
    return joint_loss(
        gains,
        batch,
        key,
        0,
        networks=ideal_networks(gains, stds, prior.logsnr_max),
        prior_schedule=prior,
        decoder_schedule=decoder,
        decoder_weight=weightings.Sigmoid(bias, factor),
        ramp_steps=0,
    )


def estimates(gains, stds, seed, num_rows=4096, num_batches=64, **kwargs):
    """Return the mean and standard error of each part of the loss.

    The error is over independent batches and not over rows: stratified times make the
    mean of a batch more accurate than the variance of its rows suggests.
    """

    def batch_means(key):
        x = jax.random.normal(jax.random.fold_in(key, 1), (num_rows, *SHAPE))
        x = x * jnp.reshape(stds, (1, *SHAPE))
        nats = terms(gains, stds, x, key, **kwargs).nats
        return {name: jnp.mean(v) for name, v in nats.items()}

    parts = jax.vmap(batch_means)(jax.random.split(jax.random.key(seed), num_batches))
    return {
        name: (jnp.mean(v), jnp.std(v, ddof=1) / num_batches**0.5)
        for name, v in parts.items()
    }


def softplus(v):
    return np.logaddexp(0.0, v)


def exact_rate(gains, stds, logsnr_0, logsnr_1):
    """Return L_z in nats, with the exact denoiser."""
    v = (gains * stds) ** 2
    gain = np.log1p(v * np.exp(logsnr_0)) - np.log1p(v * np.exp(logsnr_1))
    signal = 1 / (1 + np.exp(-logsnr_1))
    return float(np.sum(gain + signal * (v - 1) + softplus(logsnr_1))) / 2


def exact_decoder(gains, stds, factor, bias, logsnr_0, low=-12.0, high=12.0):
    """Return L_x in nats, with the exact denoiser."""
    precision = 1 / stds**2 + gains**2 * np.exp(logsnr_0)

    def integrand(logsnr):
        snr = np.exp(logsnr)
        return np.sum(snr / (precision + snr)) / (1 + np.exp(logsnr - bias)) / 2

    return factor * integrate.quad(integrand, low, high, epsabs=1e-10)[0]


def assert_equals(estimate, expected, tolerance=0.02):
    """Check that the mean is within four standard errors and that those are small."""
    mean, sem = (float(v) for v in estimate)
    assert 4 * sem < tolerance * abs(expected)
    assert abs(mean - expected) < 4 * sem, (mean, expected, sem)


ONES = jnp.ones(4)


@pytest.mark.parametrize(
    ("logsnr_0", "logsnr_1"), [(5.0, -10.0), (5.0, -3.0), (5.0, 1.0), (3.0, -10.0)]
)
def test_the_ideal_prior_on_standard_normal_latents(logsnr_0, logsnr_1):
    """The rate is softplus(l0)/2 nats per element for every l1."""
    parts = jitted_estimates(
        ONES, ONES, 0, factor=1.5, bias=0.0, prior=(logsnr_0, logsnr_1)
    )
    assert_equals(parts["rate"], 2 * softplus(logsnr_0))
    assert_equals(parts["prior"], 2 * (softplus(logsnr_0) - softplus(logsnr_1)))
    assert_equals(parts["terminal"], 2 * softplus(logsnr_1))
    np.testing.assert_allclose(softplus(5.0) / 2 / np.log(2), 3.612, atol=5e-4)


@jax.jit
def jitted_estimates(gains, stds, seed, *, factor, bias, prior):
    kwargs = dict(factor=factor, bias=bias, prior=Linear(*prior), decoder=DECODER)
    return estimates(gains, stds, seed, **kwargs)


def test_the_lowest_rate_of_a_standard_normal_prior():
    """(sigma_0^2 - 1 - log sigma_0^2) / 2 at z = 0; any other latent costs more."""
    sigma2 = 1 / (1 + np.exp(5.0))
    lowest = (sigma2 - 1 - np.log(sigma2)) / 2
    kl = gaussian.kl_standard_normal(jnp.zeros((1, 32, 32, 32)), 5.0)
    np.testing.assert_allclose(kl, 32**3 * lowest, rtol=1e-5)
    np.testing.assert_allclose(lowest, 2.007, atol=5e-4)
    bits = float(kl[0]) / np.log(2) / 512**2
    np.testing.assert_allclose(bits, 0.362, atol=5e-4)
    z = jax.random.normal(jax.random.key(0), (3, 5))
    np.testing.assert_allclose(
        gaussian.kl_standard_normal(z, 5.0) - 5 * lowest,
        (1 - sigma2) / 2 * jnp.sum(z**2, axis=1),
        rtol=1e-5,
    )


def random_case(seed):
    rng = np.random.default_rng(seed)
    case = dict(factor=rng.uniform(1.05, 4.0), bias=rng.uniform(-2.0, 4.0))
    prior = rng.uniform(4.0, 6.0), rng.uniform(-10.0, 1.0)
    stds, gains = np.exp(rng.uniform(-2.0, 0.5, 4)), rng.uniform(-0.6, 1.2, 4)
    return gains, stds, case | {"prior": prior}


@pytest.mark.parametrize("seed", range(12))
def test_the_losses_equal_their_closed_forms(seed):
    gains, stds, case = random_case(seed)
    parts = jitted_estimates(jnp.asarray(gains), jnp.asarray(stds), seed, **case)
    l0, l1 = case["prior"]
    assert_equals(parts["rate"], exact_rate(gains, stds, l0, l1))
    decoder = exact_decoder(gains, stds, case["factor"], case["bias"], l0)
    assert_equals(parts["decoder"], decoder)


KINDS = {
    "linear": Linear,
    "cosine": Cosine,
    "shifted cosine": functools.partial(Cosine, shift=-2.0),
}


@functools.cache
def estimates_under(shape):
    """Return estimates of one case under schedules of one shape."""
    kind = KINDS[shape]
    gains, stds, case = random_case(3)
    kwargs = case | dict(prior=kind(5.0, -6.0), decoder=kind(12.0, -12.0))
    estimate = jax.jit(functools.partial(estimates, **kwargs))
    return estimate(jnp.asarray(gains), jnp.asarray(stds), list(KINDS).index(shape))


@pytest.mark.parametrize("shape", ["cosine", "shifted cosine"])
@pytest.mark.parametrize("part", ["rate", "decoder"])
def test_the_loss_does_not_depend_on_the_shape_of_the_schedule(shape, part):
    """The two means agree within four standard errors of their difference."""
    linear_mean, linear_sem = estimates_under("linear")[part]
    mean, sem = estimates_under(shape)[part]
    error = float(jnp.hypot(linear_sem, sem))
    assert 4 * error < 0.05 * float(linear_mean)
    assert abs(float(mean - linear_mean)) < 4 * error


# The tests below minimize the loss over the gains alone. The optimum must be the one that
# reverse water-filling predicts.

STDS = np.asarray([2.0, 1.0, 0.5, 0.1])
PAIRS = np.asarray(
    [(1.3, 3.0), (1.5, 2.0), (1.5, 4.0), (1.7, 3.0), (2.0, 1.0), (2.0, 5.0), (2.5, 2.0)]
)
NUM_STRATA, NUM_STEPS, NUM_AVERAGED = 256, 600, 200


def antithetic_loss(gains, stds, key, factor, bias):
    """Return the mean loss over x = s and x = -s, each pair with one time and one noise.

    The loss of linear denoisers depends on second moments alone, so two values stand for
    a Gaussian. Terms that are odd in the noise cancel in a pair. They are the whole
    effect of the noise on the gradient, so only the jitter of the times remains.
    """
    stds = jnp.reshape(jnp.asarray(stds, jnp.float32), (1, *SHAPE))
    sign = jnp.tile(jnp.asarray([1.0, -1.0]), NUM_STRATA).reshape(-1, 1, 1, 1)
    kwargs = dict(row=jnp.arange(2 * NUM_STRATA) // 2, num_strata=NUM_STRATA)
    kwargs |= dict(factor=factor, bias=bias, prior=PRIOR, decoder=DECODER)
    return jnp.mean(terms(gains, stds, sign * stds, key, **kwargs).loss)


antithetic_losses = jax.vmap(antithetic_loss, in_axes=(0, None, None, 0, 0))


@functools.cache
def descend():
    """Return the gains [pairs, 4] that descent on `joint_loss` reaches.

    They are averaged over the last steps.
    """
    pairs = jnp.asarray(np.concatenate([PAIRS, [(1.0, 3.0), (0.8, 0.0)]]), jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, NUM_STEPS))

    def total(gains, key):
        return jnp.sum(antithetic_losses(gains, STDS, key, pairs[:, 0], pairs[:, 1]))

    def step(carry, i):
        gains, state = carry
        grads = jax.grad(total)(gains, jax.random.fold_in(jax.random.key(7), i))
        updates, state = optimizer.update(grads, state)
        gains = optax.apply_updates(gains, updates)
        return (gains, state), gains

    start = jnp.full((len(pairs), 4), 0.5)
    run = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(NUM_STEPS))[1])
    path = run((start, optimizer.init(start)))
    return np.mean(np.asarray(path[-NUM_AVERAGED:], np.float64), axis=0)


def posterior_precision(gains):
    """Return the precision of each pixel given z_0."""
    return 1 / STDS**2 + gains**2 * np.exp(5.0)


@pytest.mark.parametrize(
    "pair", range(len(PAIRS)), ids=lambda i: "c{} b{}".format(*PAIRS[i])
)
def test_descent_reaches_the_water_level(pair):
    """Coded directions reach P* within one per cent, and the others get no bits.

    P* is derived for logsnr from -inf to inf. The range [-12, 12] moves it by at most
    2e-5 here (by quadrature), and the prior's noisiest level by less. The rest of the
    tolerance is for the jitter of the times.
    """
    optimum = waterfilling.posterior_precision(*PAIRS[pair])
    precision = posterior_precision(descend()[pair])
    coded = STDS**2 > 1 / optimum
    assert coded.sum() == waterfilling.coded_directions(STDS**2, optimum) > 0
    np.testing.assert_allclose(precision[coded], optimum, rtol=0.01)
    bits = 0.5 * np.log2(STDS**2 * precision)
    np.testing.assert_allclose(bits[~coded], 0.0, atol=1e-3)
    np.testing.assert_allclose(
        np.sum(bits), waterfilling.rate_bits(STDS**2, optimum), rtol=0.01
    )


def test_at_a_factor_of_one_or_less_nothing_is_coded():
    bits = 0.5 * np.log2(STDS**2 * posterior_precision(descend()[len(PAIRS) :]))
    np.testing.assert_allclose(bits, 0.0, atol=1e-3)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_the_loss_is_higher_ten_per_cent_away_from_the_optimal_gains(scale):
    """The closed forms are higher there, and the gradient of the loss points back."""
    pairs, optimal_gains = jnp.asarray(PAIRS, jnp.float32), descend()[: len(PAIRS)]
    for (factor, bias), gains in zip(PAIRS, optimal_gains, strict=True):
        loss_at_optimum, loss_nearby = (
            exact_rate(k * gains, STDS, 5.0, -10.0)
            + exact_decoder(k * gains, STDS, factor, bias, 5.0)
            for k in (1.0, scale)
        )
        assert loss_at_optimum < loss_nearby, (factor, bias)

    @jax.jit
    def mean_gradient(gains):
        def total(gains, key):
            return jnp.sum(
                antithetic_losses(gains, STDS, key, pairs[:, 0], pairs[:, 1])
            )

        keys = jax.random.split(jax.random.key(11), 32)
        return jnp.mean(jax.lax.map(lambda k: jax.grad(total)(gains, k), keys), axis=0)

    gradient = np.asarray(mean_gradient(jnp.float32(scale * optimal_gains)))
    outward = np.sign(scale - 1) * gradient
    coded = STDS**2 > 1 / waterfilling.posterior_precision(*PAIRS.T)[:, None]
    assert np.all(outward[coded] > 0)


BREAKS = (
    Break(
        "alpha and sigma swapped in the forward process",
        "ul/diffusion/gaussian.py",
        "return alpha(logsnr) * x + sigma(logsnr) * eps",
        "return sigma(logsnr) * x + alpha(logsnr) * eps",
        "test_the_losses_equal_their_closed_forms",
    ),
    Break(
        "the rate without its terminal KL",
        "ul/objectives/joint.py",
        "rate=prior + terminal",
        "rate=prior",
        "test_the_losses_equal_their_closed_forms",
    ),
    Break(
        "the one half of the integrand forgotten",
        "ul/objectives/denoising.py",
        "/ 2.0 * weight(logsnr)",
        "* weight(logsnr)",
        "test_the_losses_equal_their_closed_forms",
    ),
    Break(
        "one noise for decoder and encoder",
        "ul/objectives/joint.py",
        'noise.normal("decoder_noise"',
        'noise.normal("encoder_noise"',
        "test_the_losses_equal_their_closed_forms",
    ),
    Break(
        "the slope of the linear schedule for every schedule",
        "ul/objectives/denoising.py",
        "-schedule.derivative(t) / 2.0",
        "(schedule.logsnr_max - schedule.logsnr_min) / 2.0",
        "test_the_loss_does_not_depend_on_the_shape_of_the_schedule",
    ),
    Break(
        "half of the decoder's gradient to the encoder",
        "ul/objectives/joint.py",
        "z_0 = add_encoder_noise(z_clean",
        "z_0 = add_encoder_noise(trees.scale_gradient(z_clean, 0.5)",
        "test_descent_reaches_the_water_level",
    ),
)
