"""Stage 1 as it is coded, on data whose optimum is known (the method, section 2).

x ~ N(0, s_i^2) by pixel, z_clean = g_i x, and for any gains the exact denoisers:
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

from ul.diffusion import gaussian, waterfilling, weightings
from ul.diffusion.schedules import Cosine, Linear
from ul.objectives.joint import Networks, joint

SHAPE = (2, 2, 1)
PRIOR, DECODER = Linear(5.0, -10.0), Linear(12.0, -12.0)


def ideal_networks(gains, stds, logsnr_0):
    """The encoder is `params`, a gain a pixel; the denoisers are exact for `gains`.

    At the best denoisers the loss does not change with them to first order, so that
    without a gradient of their own they leave that of the encoder whole.
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
        seen = gains * a_0 / s_0**2 * z_0 + a / s**2 * x_t
        return seen / (precision + (a / s) ** 2)

    return Networks(lambda params, x: params * x, denoise_latent, denoise_image)


SCALES = gaussian.alpha, gaussian.sigma


def terms(gains, stds, x, key, *, factor, bias, prior, decoder, row=None, strata=None):
    """`joint` on x [B, 2, 2, 1]; gains and stds [4]. Floats between levels stay exact."""
    gains, stds = (jnp.reshape(v, (1, *SHAPE)) for v in (gains, stds))
    row = jnp.arange(len(x)) if row is None else row
    batch = dict(
        image=(x + 1.0) * 127.5, row=row, stratum=row / (strata or len(x)), label=row
    )
    return joint(
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


def estimates(gains, stds, seed, rows=4096, draws=64, **how):
    """Mean and standard error of each part of the loss, over independent batches.

    Between batches, not rows: stratified times make a batch surer than its rows look.
    """

    def one(key):
        x = jax.random.normal(jax.random.fold_in(key, 1), (rows, *SHAPE))
        nats = terms(gains, stds, x * jnp.reshape(stds, (1, *SHAPE)), key, **how).nats
        return {name: jnp.mean(v) for name, v in nats.items()}

    parts = jax.vmap(one)(jax.random.split(jax.random.key(seed), draws))
    return {
        name: (jnp.mean(v), jnp.std(v, ddof=1) / draws**0.5)
        for name, v in parts.items()
    }


def softplus(v):
    return np.logaddexp(0.0, v)


def exact_rate(gains, stds, logsnr_0, logsnr_1):
    v = (gains * stds) ** 2
    gain = np.log1p(v * np.exp(logsnr_0)) - np.log1p(v * np.exp(logsnr_1))
    signal = 1 / (1 + np.exp(-logsnr_1))
    return float(np.sum(gain + signal * (v - 1) + softplus(logsnr_1))) / 2


def exact_decoder(gains, stds, factor, bias, logsnr_0, low=-12.0, high=12.0):
    precision = 1 / stds**2 + gains**2 * np.exp(logsnr_0)

    def integrand(logsnr):
        snr = np.exp(logsnr)
        return np.sum(snr / (precision + snr)) / (1 + np.exp(logsnr - bias)) / 2

    return factor * integrate.quad(integrand, low, high, epsabs=1e-10)[0]


def assert_is(estimate, want, within=0.02):
    """Within four standard errors, which themselves are small enough to tell."""
    mean, sem = (float(v) for v in estimate)
    assert 4 * sem < within * abs(want)
    assert abs(mean - want) < 4 * sem, (mean, want, sem)


ONE = jnp.ones(4)


@pytest.mark.parametrize(
    ("logsnr_0", "logsnr_1"), [(5.0, -10.0), (5.0, -3.0), (5.0, 1.0), (3.0, -10.0)]
)
def test_the_ideal_prior_on_standard_normal_latents(logsnr_0, logsnr_1):
    """softplus(l0)/2 nats an element at any l1: what the noisy end adds, prior lacks."""
    got = jitted_estimates(
        ONE, ONE, 0, factor=1.5, bias=0.0, prior=(logsnr_0, logsnr_1)
    )
    assert_is(got["rate"], 2 * softplus(logsnr_0))
    assert_is(got["prior"], 2 * (softplus(logsnr_0) - softplus(logsnr_1)))
    assert_is(got["terminal"], 2 * softplus(logsnr_1))
    np.testing.assert_allclose(softplus(5.0) / 2 / np.log(2), 3.612, atol=5e-4)


@jax.jit
def jitted_estimates(gains, stds, seed, *, factor, bias, prior):
    how = dict(factor=factor, bias=bias, prior=Linear(*prior), decoder=DECODER)
    return estimates(gains, stds, seed, **how)


def test_the_floor_of_a_standard_normal_prior():
    """(sigma_0^2 - 1 - log sigma_0^2) / 2 at z = 0; any other latent costs more."""
    sigma2 = 1 / (1 + np.exp(5.0))
    floor = (sigma2 - 1 - np.log(sigma2)) / 2
    kl = gaussian.kl_standard_normal(jnp.zeros((1, 32, 32, 32)), 5.0)
    np.testing.assert_allclose(kl, 32**3 * floor, rtol=1e-5)
    np.testing.assert_allclose(floor, 2.007, atol=5e-4)
    bits = float(kl[0]) / np.log(2) / 512**2
    np.testing.assert_allclose(bits, 0.362, atol=5e-4)
    z = jax.random.normal(jax.random.key(0), (3, 5))
    np.testing.assert_allclose(
        gaussian.kl_standard_normal(z, 5.0) - 5 * floor,
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
def test_the_losses_are_their_closed_forms(seed):
    gains, stds, case = random_case(seed)
    got = jitted_estimates(jnp.asarray(gains), jnp.asarray(stds), seed, **case)
    l0, l1 = case["prior"]
    assert_is(got["rate"], exact_rate(gains, stds, l0, l1))
    decoder = exact_decoder(gains, stds, case["factor"], case["bias"], l0)
    assert_is(got["decoder"], decoder)


KINDS = {
    "linear": Linear,
    "cosine": Cosine,
    "shifted cosine": functools.partial(Cosine, shift=-2.0),
}


@functools.cache
def under(shape):
    """A case whose terms are all of some size, under schedules of one shape."""

    kind = KINDS[shape]
    gains, stds, case = random_case(3)
    how = case | dict(prior=kind(5.0, -6.0), decoder=kind(12.0, -12.0))
    draw = jax.jit(functools.partial(estimates, **how))
    return draw(jnp.asarray(gains), jnp.asarray(stds), list(KINDS).index(shape))


@pytest.mark.parametrize("shape", ["cosine", "shifted cosine"])
@pytest.mark.parametrize("part", ["rate", "decoder"])
def test_the_loss_does_not_depend_on_the_shape_of_the_schedule(shape, part):
    """The prior's and the decoder's: two means within four of their standard errors."""
    (line, line_sem), (mean, sem) = under("linear")[part], under(shape)[part]
    error = float(jnp.hypot(line_sem, sem))
    assert 4 * error < 0.05 * float(line)
    assert abs(float(mean - line)) < 4 * error


# --- Descent on the gains alone: is the optimum of the code that of the method? ---

STDS = np.asarray([2.0, 1.0, 0.5, 0.1])
PAIRS = np.asarray(
    [(1.3, 3.0), (1.5, 2.0), (1.5, 4.0), (1.7, 3.0), (2.0, 1.0), (2.0, 5.0), (2.5, 2.0)]
)
STRATA, STEPS, TAIL = 256, 600, 200


def antithetic_loss(gains, stds, key, factor, bias):
    """Mean loss over x = s and x = -s, each pair with one time and one noise.

    Linear denoisers see second moments alone, so that two values do for a Gaussian; and
    what is odd in the noise cancels in a pair. It is all the gradient of the gains has
    of the noise: left is the jitter of the stratified times.
    """
    stds = jnp.reshape(jnp.asarray(stds, jnp.float32), (1, *SHAPE))
    sign = jnp.tile(jnp.asarray([1.0, -1.0]), STRATA).reshape(-1, 1, 1, 1)
    how = dict(row=jnp.arange(2 * STRATA) // 2, strata=STRATA)
    how |= dict(factor=factor, bias=bias, prior=PRIOR, decoder=DECODER)
    return jnp.mean(terms(gains, stds, sign * stds, key, **how).loss)


over_pairs = jax.vmap(antithetic_loss, in_axes=(0, None, None, 0, 0))


@functools.cache
def descended():
    """Gains [pairs, 4] where descent through `joint` ends, averaged over its tail."""
    pairs = jnp.asarray(np.concatenate([PAIRS, [(1.0, 3.0), (0.8, 0.0)]]), jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, STEPS))

    def total(gains, key):
        return jnp.sum(over_pairs(gains, STDS, key, pairs[:, 0], pairs[:, 1]))

    def step(carry, i):
        gains, state = carry
        slope = jax.grad(total)(gains, jax.random.fold_in(jax.random.key(7), i))
        updates, state = optimizer.update(slope, state)
        gains = optax.apply_updates(gains, updates)
        return (gains, state), gains

    start = jnp.full((len(pairs), 4), 0.5)
    run = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(STEPS))[1])
    path = run((start, optimizer.init(start)))
    return np.mean(np.asarray(path[-TAIL:], np.float64), axis=0)


def precision_of(gains):
    return 1 / STDS**2 + gains**2 * np.exp(5.0)


@pytest.mark.parametrize(
    "pair", range(len(PAIRS)), ids=lambda i: "c{} b{}".format(*PAIRS[i])
)
def test_descent_reaches_the_water_level(pair):
    """P* within a per cent for each direction above it, no bits for the others.

    P* is that of all logsnr from -inf to inf: the range [-12, 12] moves it by 2e-5 at
    most here (by quadrature), the prior's noisy end by less. The rest is the jitter.
    """
    want = waterfilling.posterior_precision(*PAIRS[pair])
    got = precision_of(descended()[pair])
    coded = STDS**2 > 1 / want
    assert coded.sum() == waterfilling.coded_directions(STDS**2, want) > 0
    np.testing.assert_allclose(got[coded], want, rtol=0.01)
    bits = 0.5 * np.log2(STDS**2 * got)
    np.testing.assert_allclose(bits[~coded], 0.0, atol=1e-3)
    np.testing.assert_allclose(
        np.sum(bits), waterfilling.rate_bits(STDS**2, want), rtol=0.01
    )


def test_at_a_factor_of_one_or_less_nothing_is_coded():
    bits = 0.5 * np.log2(STDS**2 * precision_of(descended()[len(PAIRS) :]))
    np.testing.assert_allclose(bits, 0.0, atol=1e-3)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_ten_per_cent_off_the_found_gains_the_loss_is_higher(scale):
    """By the closed forms, which `joint` was seen to have; its own slope leads back."""
    pairs, found = jnp.asarray(PAIRS, jnp.float32), descended()[: len(PAIRS)]
    for (factor, bias), gains in zip(PAIRS, found, strict=True):
        at, off = (
            exact_rate(k * gains, STDS, 5.0, -10.0)
            + exact_decoder(k * gains, STDS, factor, bias, 5.0)
            for k in (1.0, scale)
        )
        assert at < off, (factor, bias)

    @jax.jit
    def slope(gains):
        def total(gains, key):
            return jnp.sum(over_pairs(gains, STDS, key, pairs[:, 0], pairs[:, 1]))

        keys = jax.random.split(jax.random.key(11), 32)
        return jnp.mean(jax.lax.map(lambda k: jax.grad(total)(gains, k), keys), axis=0)

    outward = np.sign(scale - 1) * np.asarray(slope(jnp.float32(scale * found)))
    coded = STDS**2 > 1 / waterfilling.posterior_precision(*PAIRS.T)[:, None]
    assert np.all(outward[coded] > 0)
