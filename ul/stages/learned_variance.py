"""Ablation D: the encoder learns a variance below the fixed noise."""

import dataclasses

from ul.objectives import ablations
from ul.stages.joint import JointConfig
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class LearnedVarianceConfig(JointConfig):
    """Settings of `ablations.learned_variance`."""


STAGE = Stage1Kind(
    "learned_variance",
    LearnedVarianceConfig,
    ablations.learned_variance_loss,
    has_variance=True,
).row()
