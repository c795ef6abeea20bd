"""Stage 2 of Unified Latents: a larger model of the frozen encoder's latents.

Sigmoid weighting instead of weight 1, because the weight-1 prior spends equally on
all frequencies and samples poorly (method section 3).
"""

from collections.abc import Callable

import jax.numpy as jnp

from ul.core import rng
from ul.diffusion import times
from ul.diffusion.schedules import Schedule
from ul.objectives.denoising import denoising
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def drop_labels(label, row, key, *, rate: float, null_label: int):
    """Labels, each replaced by the null label with probability `rate`."""
    return jnp.where(rng.uniform(key, row) < rate, null_label, label)


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
    null_label: int,
) -> Terms:
    """Weighted denoising loss of z_clean, from the schedule's logsnr_max down.

    `denoise_latent(params, z_t, logsnr, label, key) -> z_hat`. No noise is added to
    z_clean beyond the schedule's own: its least noise is the encoder's.
    """
    row, z_clean = batch["row"], batch["z_clean"]
    label = drop_labels(
        batch["label"],
        row,
        rng.stream(key, "label_dropout"),
        rate=label_dropout,
        null_label=null_label,
    )
    loss = denoising(
        lambda z_t, logsnr: denoise_latent(
            params, z_t, logsnr, label, rng.stream(key, "dropout", row[0])
        ),
        z_clean,
        times.stratified(rng.stream(key, "time"), batch["stratum"]),
        rng.normal(rng.stream(key, "noise"), row, z_clean.shape[1:]),
        schedule=schedule,
        weight=weight,
    )
    return Terms(loss=loss, nats={"base": loss}, stats=latent_stats(z_clean))
