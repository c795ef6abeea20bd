"""Both single-stage variants of the paper's appendix: the prior is the base model.

The prior sees labels and is what one samples from; there is no stage 2.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import logit

from ul.core import arrays, trees
from ul.diffusion.schedules import Linear
from ul.objectives import conditions
from ul.objectives.conditions import Null
from ul.objectives.joint import add_encoder_noise, decoder_nats, prior_nats, ramp_at
from ul.objectives.noise import Draws
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The least noise is logsnr_max for every example: a plain ELBO on the prior.

    With the decoder's loss shifted to noisier data this is the first variant.
    """

    def __call__(self, u, logsnr_max: float):
        return jnp.full_like(u, logsnr_max)


@dataclasses.dataclass(frozen=True)
class TruncatedLogistic:
    """The least noise is drawn from Logistic(bias, 1), kept where it is <= logsnr_max.

    The chance that a noise level lies below it weights the ELBO there: about
    sigmoid(bias - logsnr), so an unweighted bound trains a weighted one (Kingma & Gao,
    Understanding Diffusion Objectives as the ELBO). The second variant.
    """

    bias: float

    def __call__(self, u, logsnr_max: float):
        # The inverse of the truncated distribution; u = 0 would be minus infinity.
        highest = 1.0 / (1.0 + jnp.exp(self.bias - logsnr_max))
        return self.bias + logit(jnp.clip(u, 1e-6, 1.0) * highest)


LEAST_NOISE = {"fixed": Fixed, "truncated_logistic": TruncatedLogistic}


def single(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    denoise_latent: Callable,
    denoise_image: Callable,
    least: Callable,
    prior_schedule: Linear,
    decoder_schedule: Linear,
    decoder_weight: Callable,
    label_dropout: float,
    null: Null,
    ramp_steps: int,
) -> Terms:
    """L_z from each example's own least noise, and a decoder that is told that noise.

    denoise_latent(params, z_t, logsnr, condition, key) -> z_hat
    denoise_image(params, x_t, logsnr, z_0, logsnr_0 [B], key) -> x_hat
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)
    given = conditions.of(batch, null)
    given = conditions.dropped(given, draws, rate=label_dropout, null=null)
    z_clean = encode(params, x).astype(jnp.float32)
    logsnr_0 = least(draws.uniform("least_noise"), prior_schedule.logsnr_max)
    # Never under the noisy end, where nothing would be left to learn.
    logsnr_0 = jnp.maximum(logsnr_0, prior_schedule.logsnr_min + 1e-3)

    def z_hat(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, given, draws.dropout())

    z_prior = trees.scale_gradient(z_clean, ramp_at(step, ramp_steps))
    # [B]: every example its own.
    own = Linear(logsnr_0, prior_schedule.logsnr_min)  # type: ignore[arg-type]
    nats = prior_nats(z_hat, z_prior, draws, own)
    z_0 = add_encoder_noise(z_clean, draws, logsnr_0)

    def x_hat(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, logsnr_0, draws.dropout())

    nats["decoder"] = decoder_nats(x_hat, x, draws, decoder_schedule, decoder_weight)
    return Terms(
        loss=nats["rate"] + nats["decoder"],
        nats=nats,
        stats=latent_stats(z_clean) | {"logsnr_0": logsnr_0},
    )
