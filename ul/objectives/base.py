"""Stage 2 of Unified Latents: a larger base model of the frozen encoder's latents.

The base model is trained with a sigmoid weight instead of weight 1: a model trained with
weight 1 spends equally on all frequencies and samples poorly (ul/README.md, equation 6).
"""

from collections.abc import Callable

from ul.diffusion.schedules import Schedule
from ul.objectives import conditions
from ul.objectives.conditions import NullValues
from ul.objectives.denoising import denoising_loss
from ul.objectives.joint import prior_nats
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def base_model_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_latent: Callable,
    schedule: Schedule,
    weight: Callable,
    label_dropout: float,
    null: NullValues,
) -> Terms:
    """Return the weighted denoising loss of z_clean.

    `denoise_latent(params, z_t, logsnr, condition, key) -> z_hat`. The schedule's
    logsnr_max is the level of the encoder's noise, so z_clean gets no other noise.
    """
    z_clean, noise = batch["z_clean"], BatchNoise.for_batch(batch, key)
    condition = conditions.from_batch(batch, null)
    condition = conditions.drop(condition, noise, rate=label_dropout, null=null)

    def denoise_z(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, condition, noise.dropout_key())

    t, eps = noise.time("time"), noise.normal("noise", z_clean)
    loss = denoising_loss(denoise_z, z_clean, t, eps, schedule=schedule, weight=weight)
    return Terms(loss=loss, nats={"base": loss}, stats=latent_stats(z_clean))


def base_model_rate(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_latent: Callable,
    schedule: Schedule,
    null: NullValues,
) -> Terms:
    """Return the bound L_z on the information in z_0 under the base model, at weight 1.

    The paper calls it "bits per pixel with the base". It is an evaluation and never
    trained on.
    """
    z_clean, noise = batch["z_clean"], BatchNoise.for_batch(batch, key)
    condition = conditions.from_batch(batch, null)

    def denoise_z(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, condition, noise.dropout_key())

    nats = prior_nats(denoise_z, z_clean, noise, schedule)
    return Terms(loss=nats["rate"], nats=nats, stats={})
