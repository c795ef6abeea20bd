"""Ablation: the decoder is one network call, trained with squared error."""

import dataclasses

from ul.config import Stage1Config
from ul.config.schema import RampedLoss
from ul.objectives import ablations
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class MseLoss(RampedLoss):
    """precision: inverse variance of the pixels around the reconstruction."""

    precision: float


@dataclasses.dataclass(frozen=True)
class MseDecoderConfig(Stage1Config):
    """Settings of `ablations.mse_decoder`."""

    prior: dict
    prior_schedule: dict
    loss: MseLoss


STAGE = Stage1Kind(
    "mse_decoder", MseDecoderConfig, ablations.mse_decoder_loss, is_diffusion=False
).row()
