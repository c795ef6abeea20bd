"""Ablation A: the prior never reaches the encoder; a discounted KL to N(0, I) does."""

import dataclasses

from ul.config import Stage1Config
from ul.config.schema import Stage1Loss
from ul.objectives import ablations
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class DetachedPriorLoss(Stage1Loss):
    """kl_weight: weight of KL[q(z_0 | x) || N(0, I)], in place of the prior's gradient."""

    weighting: dict
    kl_weight: float


@dataclasses.dataclass(frozen=True)
class DetachedPriorConfig(Stage1Config):
    """Settings of `ablations.detached_prior`."""

    prior: dict
    prior_schedule: dict
    decoder_schedule: dict
    loss: DetachedPriorLoss


STAGE = Stage1Kind(
    "detached_prior",
    DetachedPriorConfig,
    ablations.detached_prior_loss,
    prior_reaches_encoder=False,
).row()
