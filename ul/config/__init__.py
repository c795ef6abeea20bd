"""A config as plain data: which keys there are, their types and their ranges.

`parse(dict)` gives the frozen class of its stage. Everything a config can get wrong is
said here, in one line, before JAX starts.
"""

from ul.config.stages import (
    STAGES,
    AutoencoderConfig,
    DetachedPriorConfig,
    ExternalConfig,
    GeneratorConfig,
    JointConfig,
    KlAutoencoderConfig,
    LearnedVarianceConfig,
    MseDecoderConfig,
    NormalPriorConfig,
    PixelDiffusionConfig,
    RunConfig,
    SingleStageConfig,
    Stage1Config,
    Stage2Config,
    TrainConfig,
)
from ul.config.validation import construct, parse

__all__ = [
    "STAGES",
    "AutoencoderConfig",
    "Stage2Config",
    "TrainConfig",
    "DetachedPriorConfig",
    "ExternalConfig",
    "GeneratorConfig",
    "JointConfig",
    "KlAutoencoderConfig",
    "LearnedVarianceConfig",
    "MseDecoderConfig",
    "NormalPriorConfig",
    "PixelDiffusionConfig",
    "RunConfig",
    "SingleStageConfig",
    "Stage1Config",
    "construct",
    "parse",
]
