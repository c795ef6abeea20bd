"""The two single-stage variants of the paper's appendix.

The prior is conditioned on labels and is itself the base model that one samples from;
there is no stage 2.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import logit

from ul.core import arrays, trees
from ul.diffusion.schedules import Linear
from ul.objectives import conditions
from ul.objectives.conditions import NullValues
from ul.objectives.joint import (
    add_encoder_noise,
    decoder_nats,
    gradient_ramp,
    prior_nats,
)
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class FixedMaxLogsnr:
    """The prior's maximum log-SNR is logsnr_max for every example: a plain ELBO.

    Together with a decoder loss that is shifted to noisier data, it is the first variant.
    """

    def __call__(self, u, logsnr_max: float):
        """Return logsnr_max for each of the uniform numbers u [B]."""
        return jnp.full_like(u, logsnr_max)


@dataclasses.dataclass(frozen=True)
class TruncatedLogisticMaxLogsnr:
    """The prior's maximum log-SNR is random: Logistic(bias, 1) cut off at logsnr_max.

    The ELBO at a noise level then counts with the probability that the example's maximum
    lies above that level, which is about sigmoid(bias - logsnr). An unweighted bound
    therefore trains a weighted one (Kingma & Gao, Understanding Diffusion Objectives as
    the ELBO). It is the second variant.
    """

    bias: float

    def __call__(self, u, logsnr_max: float):
        """Return the u-quantiles of the distribution, for uniform numbers u [B]."""
        # At u = 0 the quantile would be minus infinity.
        u_at_max = 1.0 / (1.0 + jnp.exp(self.bias - logsnr_max))
        return self.bias + logit(jnp.clip(u, 1e-6, 1.0) * u_at_max)


MAX_LOGSNR_KINDS = {
    "fixed": FixedMaxLogsnr,
    "truncated_logistic": TruncatedLogisticMaxLogsnr,
}


def single_stage_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    denoise_latent: Callable,
    denoise_image: Callable,
    max_logsnr: Callable,
    prior_schedule: Linear,
    decoder_schedule: Linear,
    decoder_weight: Callable,
    label_dropout: float,
    null: NullValues,
    ramp_steps: int,
) -> Terms:
    """Return L_z + L_x, where each example has its own maximum log-SNR logsnr_0.

    `max_logsnr(u, logsnr_max)` maps uniform numbers u [B] to logsnr_0 [B]. The prior's
    schedule starts there, the latent z_0 has noise of that level, and the decoder is
    conditioned on it.

    denoise_latent(params, z_t, logsnr, condition, key) -> z_hat
    denoise_image(params, x_t, logsnr, z_0, logsnr_0, key) -> x_hat
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    condition = conditions.from_batch(batch, null)
    condition = conditions.drop(condition, noise, rate=label_dropout, null=null)
    z_clean = encode(params, x).astype(jnp.float32)
    # A historical stream name: renaming it would change all results.
    logsnr_0 = max_logsnr(noise.uniform("least_noise"), prior_schedule.logsnr_max)
    # At the noisy end of the schedule nothing would be left to learn.
    logsnr_0 = jnp.maximum(logsnr_0, prior_schedule.logsnr_min + 1e-3)

    def denoise_z(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, condition, noise.dropout_key())

    z_prior = trees.scale_gradient(z_clean, gradient_ramp(step, ramp_steps))
    # logsnr_0 is an array [B]: the schedule of each example has its own logsnr_max.
    own_schedule = Linear(logsnr_0, prior_schedule.logsnr_min)  # type: ignore[arg-type]
    nats = prior_nats(denoise_z, z_prior, noise, own_schedule)
    z_0 = add_encoder_noise(z_clean, noise, logsnr_0)

    def denoise_x(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, logsnr_0, noise.dropout_key())

    nats["decoder"] = decoder_nats(
        denoise_x, x, noise, decoder_schedule, decoder_weight
    )
    return Terms(
        loss=nats["rate"] + nats["decoder"],
        nats=nats,
        stats=latent_stats(z_clean) | {"logsnr_0": logsnr_0},
    )
