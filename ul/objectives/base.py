"""Stage 2 of Unified Latents: a larger model of the frozen encoder's latents.

Sigmoid weighting instead of weight 1, because the weight-1 prior spends equally on
all frequencies and samples poorly (method section 3).
"""

from collections.abc import Callable

from ul.diffusion.schedules import Schedule
from ul.objectives import conditions
from ul.objectives.conditions import Null
from ul.objectives.denoising import denoising
from ul.objectives.joint import prior_nats
from ul.objectives.noise import Draws
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def base(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_latent: Callable,
    schedule: Schedule,
    weight: Callable,
    label_dropout: float,
    null: Null,
) -> Terms:
    """Weighted denoising loss of z_clean, from the schedule's logsnr_max down.

    `denoise_latent(params, z_t, logsnr, condition, key) -> z_hat`. No noise is added to
    z_clean beyond the schedule's own: its least noise is the encoder's.
    """
    z_clean, draws = batch["z_clean"], Draws.of(batch, key)
    given = conditions.of(batch, null)
    given = conditions.dropped(given, draws, rate=label_dropout, null=null)
    loss = denoising(
        lambda z_t, logsnr: denoise_latent(params, z_t, logsnr, given, draws.dropout()),
        z_clean,
        draws.time("time"),
        draws.noise("noise", z_clean),
        schedule=schedule,
        weight=weight,
    )
    return Terms(loss=loss, nats={"base": loss}, stats=latent_stats(z_clean))


def base_rate(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_latent: Callable,
    schedule: Schedule,
    null: Null,
) -> Terms:
    """What z_0 costs under the base model: its unweighted bound, as the prior's is.

    The paper's "bits per pixel with the base"; an evaluation, never trained on.
    """
    z_clean, draws = batch["z_clean"], Draws.of(batch, key)
    given = conditions.of(batch, null)

    def z_hat(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, given, draws.dropout())

    nats = prior_nats(z_hat, z_clean, draws, schedule)
    return Terms(loss=nats["rate"], nats=nats, stats={})
