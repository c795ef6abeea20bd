"""Stage 2 of Unified Latents: a base model on the latents of a frozen stage 1."""

import dataclasses
import inspect

from ul.config import GeneratorConfig, TrainConfig
from ul.config.schema import FrozenStage1, GuidanceConfig, Shape, Stage2Loss
from ul.core.errors import ConfigError
from ul.stages import generator, kinds
from ul.stages.conditions import stage2_conditions
from ul.stages.stage import NetworkUse, Stage, StageKind


@dataclasses.dataclass(frozen=True)
class Stage2Config(TrainConfig, GeneratorConfig):
    """Settings of stage 2.

    latent_shape: shape of the base model's input; stage 1 must produce it.
    latent_cache: a directory of `ul encode`; None encodes images while training.
    latent_dtype: latents are rounded to it, cached or not, so that training is the same.
    context_frames: number of first frames that clips are continued from; 0 for images.
    latent_variance: variance v of the latents around their mean. The config gives
      loss.weighting.bias, guidance and sampling.logsnr_min for latents of variance 1; log v
      is subtracted from each. None measures v when the run starts; 1 changes nothing.
    """

    stage1: FrozenStage1
    latent_shape: Shape
    latent_dtype: str
    base: dict
    schedule: dict
    loss: Stage2Loss
    guidance: GuidanceConfig
    latent_cache: str | None = None
    context_frames: int = 0
    latent_variance: float | None = 1.0


def build(config: Stage2Config) -> Stage:
    """Build the base model with its objective and sampler.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    data, shape = config.data, config.latent_shape
    is_clip = len(data.image_shape) == 4
    if config.context_frames and not (
        is_clip and config.context_frames < data.image_shape[0]
    ):
        raise ConfigError(
            "context_frames must be 0 for images, and fewer than the frames of clips; got "
            f"{config.context_frames} for data.image_shape {data.image_shape}."
        )
    conditions = stage2_conditions(data, shape, config.context_frames)
    module = kinds.network(
        "base",
        config.base,
        config.dtype,
        num_classes=data.num_classes if "label" in conditions else 0,
        text_channels=data.text[1],
    )
    parameters = inspect.signature(type(module).__call__).parameters
    if missing := [name for name in conditions.names if name not in parameters]:
        raise ConfigError(
            f"base.kind {config.base['kind']!r} must take the conditions of the data; it "
            f"does not take {', '.join(missing)}. Choose another kind."
        )
    module.check("base", shape, data.text != (0, 0))
    use = NetworkUse(
        module,
        shape,
        extra_channels=shape[-1] if "context" in conditions else 0,
        text=data.text,
        needs_input_gradient=False,
    )
    return generator.build(config, "base", use, shape, conditions)


STAGE = StageKind("base", Stage2Config, build)
