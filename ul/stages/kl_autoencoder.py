"""Baseline: the KL autoencoder of latent diffusion (Rombach et al.), without adversary."""

import dataclasses

from ul.config import Stage1Config
from ul.config.schema import Stage1Loss
from ul.objectives import ablations
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class KlAutoencoderLoss(Stage1Loss):
    """precision: inverse variance of the pixels; kl_weight: weight of the KL term."""

    precision: float
    kl_weight: float


@dataclasses.dataclass(frozen=True)
class KlAutoencoderConfig(Stage1Config):
    """latent_logsnr: log-SNR at which a base model on these latents stops."""

    latent_logsnr: float
    loss: KlAutoencoderLoss


STAGE = Stage1Kind(
    "kl_autoencoder",
    KlAutoencoderConfig,
    ablations.kl_autoencoder_loss,
    has_variance=True,
    is_diffusion=False,
).row()
