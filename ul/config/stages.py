"""The keys that configs of all stages share; each stage's file in ul/stages adds its own."""

import dataclasses

from ul.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    GuidanceConfig,
    LogConfig,
    MeshConfig,
    OptimizerConfig,
    Sampling,
    Stage1Loss,
    ValidationConfig,
    WatchdogConfig,
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings of everything that has a workdir: those that an evaluation reads."""

    stage: str
    seed: int
    dtype: str
    data: DataConfig
    eval: EvalConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of everything that is trained.

    ema: the averages of the parameters that are kept, each a decay or "power:<width>"
    (train/ema.py). The first one is the default of evaluations.
    """

    steps: int
    batch_size: int
    accumulate: int
    optimizer: OptimizerConfig
    ema: tuple[float | str, ...]
    mesh: MeshConfig
    log: LogConfig
    validation: ValidationConfig
    checkpoint: CheckpointConfig
    watchdog: WatchdogConfig
    sampling: Sampling


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(RunConfig):
    """Settings of any stage 1, trained here or imported."""


@dataclasses.dataclass(frozen=True)
class Stage1Config(AutoencoderConfig, TrainConfig):
    """Settings of any stage 1 that is trained here.

    Sections with a `kind` stay dicts: the constructor that `kind` chooses checks them.
    """

    encoder: dict
    decoder: dict
    loss: Stage1Loss


class GeneratorConfig:
    """Mixed into the configs of stages that sample images from conditions."""

    guidance: GuidanceConfig
