"""What the paper compares Unified Latents with: stage 1 with one piece exchanged.

Each is a sum of the pieces of `joint.py`. The letters are those of the paper's
ablation table (method section 5). All take (params, batch, key, step), per example in
nats; `nats["rate"]` is what each calls its bits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core import arrays, trees
from ul.diffusion import gaussian
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import (
    Networks,
    add_encoder_noise,
    decoder_nats,
    prior_nats,
    ramp_at,
)
from ul.objectives.noise import Draws
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def _terms(nats: dict, z, *more) -> Terms:
    """The loss is rate + decoder + `more`."""
    return Terms(
        loss=sum(more, nats["rate"] + nats["decoder"]), nats=nats, stats=latent_stats(z)
    )


def squared_error_nats(x, x_hat, precision: float):
    """precision/2 ||x - x_hat||^2 [B]: -log N(x; x_hat, 1/precision), constants left out."""
    error = jnp.square(x - x_hat.astype(jnp.float32))
    return precision / 2.0 * gaussian.sum_elements(error)


def normal_prior(
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
    """The rate is KL[q(z_0 | x) || N(0, I)]: no prior is learned."""
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    z_clean = encode(params, x).astype(jnp.float32)
    z_prior = trees.scale_gradient(z_clean, ramp_at(step, ramp_steps))
    rate = gaussian.kl_standard_normal(z_prior, latent_logsnr)
    z_0 = add_encoder_noise(z_clean, draws, latent_logsnr)

    def x_hat(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, draws.dropout())

    decoder = decoder_nats(x_hat, x, draws, decoder_schedule, decoder_weight)
    return _terms(dict(rate=rate, decoder=decoder), z_clean)


def mse_decoder(
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
    """The decoder is one call, `decode(params, z_0, key) -> x_hat`, under squared error.

    On Gaussian data the optimum has posterior precision `precision`: give the
    P* = r*(c_lf) e^b of a UL run for as many bits.
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    z_clean = encode(params, x).astype(jnp.float32)

    def z_hat(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, draws.dropout())

    z_prior = trees.scale_gradient(z_clean, ramp_at(step, ramp_steps))
    nats = prior_nats(z_hat, z_prior, draws, prior_schedule)
    z_0 = add_encoder_noise(z_clean, draws, prior_schedule.logsnr_max)
    x_hat = decode(params, z_0, draws.dropout())
    nats["decoder"] = squared_error_nats(x, x_hat, precision)
    return _terms(nats, z_clean)


def learned_variance(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    networks: Networks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    ramp_steps: int,
) -> Terms:
    """D: z ~ N(mu, s^2), `encode(params, x) -> (mu, log s^2)`; the fixed noise comes on top.

    E L_z(z) bounds the information that z_0 holds of z. What it holds of x is less by
    the entropy that s adds to z_0 given x, 1/2 log(s^2 e^logsnr_max + 1) an element.
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    mean, log_variance = encode(params, x)
    spread = jnp.exp(log_variance / 2.0)
    z = mean + spread * draws.noise("encoder_variance", mean)

    def z_hat(z_t, logsnr):
        return networks.denoise_latent(params, z_t, logsnr, draws.dropout())

    ramp = ramp_at(step, ramp_steps)
    nats = prior_nats(z_hat, trees.scale_gradient(z, ramp), draws, prior_schedule)
    gain = jax.nn.softplus(log_variance + prior_schedule.logsnr_max) / 2.0
    entropy = -gaussian.sum_elements(trees.scale_gradient(gain, ramp))
    nats |= dict(rate=nats["rate"] + entropy, entropy=entropy)
    z_0 = add_encoder_noise(z, draws, prior_schedule.logsnr_max)

    def x_hat(x_t, logsnr):
        return networks.denoise_image(params, x_t, logsnr, z_0, draws.dropout())

    nats["decoder"] = decoder_nats(x_hat, x, draws, decoder_schedule, decoder_weight)
    return _terms(nats, z)


def detached_prior(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    networks: Networks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    kl_weight: float,
) -> Terms:
    """A: the prior learns, but never reaches the encoder; a discounted KL to N(0, I) does.

    The bits reported are still those of the diffusion prior.
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    z_clean = networks.encode(params, x).astype(jnp.float32)

    def z_hat(z_t, logsnr):
        return networks.denoise_latent(params, z_t, logsnr, draws.dropout())

    nats = prior_nats(z_hat, jax.lax.stop_gradient(z_clean), draws, prior_schedule)
    nats["kl"] = gaussian.kl_standard_normal(z_clean, prior_schedule.logsnr_max)
    z_0 = add_encoder_noise(z_clean, draws, prior_schedule.logsnr_max)

    def x_hat(x_t, logsnr):
        return networks.denoise_image(params, x_t, logsnr, z_0, draws.dropout())

    nats["decoder"] = decoder_nats(x_hat, x, draws, decoder_schedule, decoder_weight)
    return _terms(nats, z_clean, kl_weight * nats["kl"])


def kl_autoencoder(
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
    """The autoencoder of latent diffusion (Rombach et al. 2022, without adversary).

    z ~ N(mu, s^2), `encode(params, x) -> (mu, log s^2)`; squared error plus a KL to
    N(0, I) at `kl_weight`, usually small. The rate reported is the whole KL.
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    mean, log_variance = encode(params, x)
    spread = jnp.exp(log_variance / 2.0)
    z = mean + spread * draws.noise("encoder_variance", mean)
    rate = gaussian.kl_of_normal(mean, log_variance)
    decoder = squared_error_nats(x, decode(params, z, draws.dropout()), precision)
    return Terms(
        loss=kl_weight * rate + decoder,
        nats=dict(rate=rate, decoder=decoder),
        stats=latent_stats(mean),
    )
