"""The alternatives to which the paper compares Unified Latents: stage 1 with one change.

Each objective is a sum of the pieces of `joint.py`. Letters such as "A" are those of the
paper's ablation table. All objectives return terms per example in nats, and `nats["rate"]`
is what each one reports as its bits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core import arrays, trees
from ul.diffusion import gaussian
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import (
    JointNetworks,
    add_encoder_noise,
    decoder_nats,
    gradient_ramp,
    prior_nats,
)
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def normal_prior_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    denoise_image: Callable,
    latent_logsnr: float,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    ramp_steps: int,
) -> Terms:
    """Return the loss with the rate KL[q(z_0 | x) || N(0, I)]: no prior is learned."""
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_clean = encode(params, x).astype(jnp.float32)
    z_prior = trees.scale_gradient(z_clean, gradient_ramp(step, ramp_steps))
    rate = gaussian.kl_standard_normal(z_prior, latent_logsnr)
    z_0 = add_encoder_noise(z_clean, noise, latent_logsnr)
    denoise_x = _decoder(denoise_image, params, z_0, noise)
    decoder = decoder_nats(denoise_x, x, noise, decoder_schedule, decoder_weight)
    return _terms(dict(rate=rate, decoder=decoder), z_clean)


def mse_decoder_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    denoise_latent: Callable,
    decode: Callable,
    prior_schedule: Schedule,
    precision: float,
    ramp_steps: int,
) -> Terms:
    """Return the loss with a decoder of one call and a squared error.

    `decode(params, z_0, key) -> x_hat`. On Gaussian data the optimum has the posterior
    precision `precision`. For as many bits as a UL run, set it to that run's
    P* = r*(c_lf) e^b (ul/README.md, equation 9).
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_clean = encode(params, x).astype(jnp.float32)
    z_prior = trees.scale_gradient(z_clean, gradient_ramp(step, ramp_steps))
    denoise_z = _prior(denoise_latent, params, noise)
    nats = prior_nats(denoise_z, z_prior, noise, prior_schedule)
    z_0 = add_encoder_noise(z_clean, noise, prior_schedule.logsnr_max)
    x_hat = decode(params, z_0, noise.dropout_key())
    nats["decoder"] = squared_error_nats(x, x_hat, precision)
    return _terms(nats, z_clean)


def learned_variance_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    networks: JointNetworks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    ramp_steps: int,
) -> Terms:
    """Return the loss with an encoder z ~ N(mu, s^2), before the fixed noise (D).

    `encode(params, x) -> (mu, log s^2)`. E L_z(z) bounds the information that z_0 holds
    about z. What z_0 holds about x is less by the entropy that s adds to z_0 given x,
    1/2 log(s^2 e^logsnr_max + 1) per element.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    mean, log_variance = encode(params, x)
    z = _draw_latent(mean, log_variance, noise)
    ramp = gradient_ramp(step, ramp_steps)
    denoise_z = _prior(networks.denoise_latent, params, noise)
    nats = prior_nats(denoise_z, trees.scale_gradient(z, ramp), noise, prior_schedule)
    added = jax.nn.softplus(log_variance + prior_schedule.logsnr_max) / 2.0
    entropy = -gaussian.sum_elements(trees.scale_gradient(added, ramp))
    nats |= dict(rate=nats["rate"] + entropy, entropy=entropy)
    z_0 = add_encoder_noise(z, noise, prior_schedule.logsnr_max)
    denoise_x = _decoder(networks.denoise_image, params, z_0, noise)
    nats["decoder"] = decoder_nats(
        denoise_x, x, noise, decoder_schedule, decoder_weight
    )
    return _terms(nats, z)


def detached_prior_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    networks: JointNetworks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    kl_weight: float,
) -> Terms:
    """Return the loss with a stop-gradient before the prior and a discounted KL (A).

    The prior learns, but its loss does not reach the encoder. The encoder is regularized
    by `kl_weight` times its KL to N(0, I) instead. The rate is still the prior's.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_clean = networks.encode(params, x).astype(jnp.float32)
    denoise_z = _prior(networks.denoise_latent, params, noise)
    nats = prior_nats(denoise_z, jax.lax.stop_gradient(z_clean), noise, prior_schedule)
    nats["kl"] = gaussian.kl_standard_normal(z_clean, prior_schedule.logsnr_max)
    z_0 = add_encoder_noise(z_clean, noise, prior_schedule.logsnr_max)
    denoise_x = _decoder(networks.denoise_image, params, z_0, noise)
    nats["decoder"] = decoder_nats(
        denoise_x, x, noise, decoder_schedule, decoder_weight
    )
    return _terms(nats, z_clean, kl_weight * nats["kl"])


def kl_autoencoder_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    decode: Callable,
    precision: float,
    kl_weight: float,
) -> Terms:
    """Return the loss of the autoencoder of latent diffusion, without its adversary.

    Rombach et al. 2022: z ~ N(mu, s^2), `encode(params, x) -> (mu, log s^2)`, a squared
    error and `kl_weight` (usually small) times the KL to N(0, I). The rate is the whole
    KL.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    mean, log_variance = encode(params, x)
    z = _draw_latent(mean, log_variance, noise)
    rate = gaussian.kl_diagonal_normal(mean, log_variance)
    decoder = squared_error_nats(x, decode(params, z, noise.dropout_key()), precision)
    return Terms(
        loss=kl_weight * rate + decoder,
        nats=dict(rate=rate, decoder=decoder),
        stats=latent_stats(mean),
    )


def squared_error_nats(x, x_hat, precision: float):
    """Return precision/2 ||x - x_hat||^2 [B].

    It is -log N(x; x_hat, 1/precision) without its constant terms.
    """
    error = jnp.square(x - x_hat.astype(jnp.float32))
    return precision / 2.0 * gaussian.sum_elements(error)


def _prior(denoise_latent: Callable, params: Params, noise: BatchNoise) -> Callable:
    """Return the prior as a denoiser (z_t, logsnr) -> z_hat."""

    def denoise_z(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, noise.dropout_key())

    return denoise_z


def _decoder(denoise_image: Callable, params: Params, z_0, noise: BatchNoise):
    """Return the decoder of z_0 as a denoiser (x_t, logsnr) -> x_hat."""

    def denoise_x(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, noise.dropout_key())

    return denoise_x


def _draw_latent(mean, log_variance, noise: BatchNoise):
    """Draw z ~ N(mean, exp(log_variance))."""
    std = jnp.exp(log_variance / 2.0)
    return mean + std * noise.normal("encoder_variance", mean)


def _terms(nats: dict, z, *more) -> Terms:
    """Return the terms whose loss is rate + decoder + `more`."""
    return Terms(
        loss=sum(more, nats["rate"] + nats["decoder"]), nats=nats, stats=latent_stats(z)
    )
