"""Single stage (the paper's appendix): the prior sees labels and is the base model."""

import dataclasses
from typing import Any

from ul.config import GeneratorConfig
from ul.config.schema import GuidanceConfig, JointLoss
from ul.core.errors import ConfigError
from ul.diffusion import schedules
from ul.objectives import single_stage
from ul.stages import generator, kinds, stage1
from ul.stages.conditions import label_conditions
from ul.stages.joint import JointConfig
from ul.stages.networks import NetworkFunctions
from ul.stages.stage import Stage, StageKind
from ul.stages.stage1 import Stage1Kind


@dataclasses.dataclass(frozen=True)
class SingleStageLoss(JointLoss):
    """label_dropout: how often labels are dropped for classifier-free guidance."""

    label_dropout: float


@dataclasses.dataclass(frozen=True)
class SingleStageConfig(JointConfig, GeneratorConfig):
    """Settings of `objectives/single_stage.py`.

    max_logsnr: a `kind` of that file, which chooses each example's maximum log-SNR.
    """

    max_logsnr: dict
    loss: SingleStageLoss
    guidance: GuidanceConfig


def _arguments(
    config: SingleStageConfig, functions: NetworkFunctions, training: bool
) -> dict[str, Any]:
    if config.prior_schedule["kind"] != "linear":
        raise ConfigError(
            "prior_schedule.kind must be 'linear' for stage 'single_stage', because each "
            "example has its own maximum log-SNR; got "
            f"{config.prior_schedule['kind']!r}."
        )
    max_logsnr = kinds.SECTIONS["max_logsnr"].build("max_logsnr", config.max_logsnr)
    return {
        "denoise_latent": functions.denoise_latent_with_condition,
        "denoise_image": functions.denoise_with_latent_noise_level,
        # The rate is that of the z_0 that is decoded, so an evaluation has its noise.
        "max_logsnr": max_logsnr if training else single_stage.FixedMaxLogsnr(),
        "label_dropout": config.loss.label_dropout if training else 0.0,
        "null": label_conditions(config.data.num_classes).null,
    }


KIND = Stage1Kind(
    "single_stage",
    SingleStageConfig,
    single_stage.single_stage_loss,
    is_single_stage=True,
    more_arguments=_arguments,
)


def build(config: SingleStageConfig) -> Stage:
    """Build a stage 1 whose prior is sampled from.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    built = stage1.build(KIND, config)
    conditions = label_conditions(config.data.num_classes)
    schedule = kinds.schedule("prior_schedule", config.prior_schedule)
    assert isinstance(schedule, schedules.Linear)
    functions = NetworkFunctions(
        stage1.stage1_modules(config, has_variance=False, is_single_stage=True),
        training=False,
    )

    def denoise_latent(params, *arguments):
        return functions.denoise_latent_with_condition({"prior": params}, *arguments)

    # The ends and the measurement of the section are those of the decoder's grid.
    sampling = dataclasses.replace(
        config.sampling,
        grid="schedule" if config.sampling.grid == "schedule" else "logsnr",
        logsnr_max=None,
        logsnr_min=None,
        nats_per_logsnr=(),
    )
    sampler = generator.latent_sampler(
        dataclasses.replace(config, sampling=sampling),
        denoise_latent,
        schedule,
        built.latent_shape,
        conditions,
    )
    return dataclasses.replace(built, conditions=conditions, sampler=sampler)


STAGE = StageKind("single_stage", SingleStageConfig, build)
