"""Ablation: the latents' rate is a KL to N(0, I); no prior network is learned."""

import dataclasses

from ul.config import Stage1Config
from ul.config.schema import JointLoss
from ul.objectives import ablations
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class NormalPriorConfig(Stage1Config):
    """latent_logsnr: log-SNR of the encoder's fixed noise."""

    latent_logsnr: float
    decoder_schedule: dict
    loss: JointLoss


STAGE = Stage1Kind("normal_prior", NormalPriorConfig, ablations.normal_prior_loss).row()
