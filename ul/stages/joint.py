"""Stage 1 of Unified Latents: encoder, prior and decoder together."""

import dataclasses

from ul.config import Stage1Config
from ul.config.schema import JointLoss
from ul.objectives import joint
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class JointConfig(Stage1Config):
    """Settings of `objectives/joint.py`."""

    prior: dict
    prior_schedule: dict
    decoder_schedule: dict
    loss: JointLoss


STAGE = Stage1Kind("joint", JointConfig, joint.joint_loss).row()
