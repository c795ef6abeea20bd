"""Stage "distill": a decoder of a few calls, taught by the diffusion decoder of a run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ul.config.schema import Sampling
from ul.core.errors import ConfigError
from ul.diffusion.samplers import Sampler
from ul.diffusion.sampling_grids import SegmentStarts
from ul.stages import kinds
from ul.stages.codec import DiffusionDecoder
from ul.stages.decoder import SeparateDecoderConfig, decoder_modules, decoder_stage
from ul.stages.networks import NetworkFunctions
from ul.stages.stage import Distillation, Stage, StageKind


@dataclasses.dataclass(frozen=True)
class DistillConfig(SeparateDecoderConfig):
    """Settings of a distillation.

    stage1: the run of the teacher, whose decoder the student starts from and must equal in
      its settings. distillation: a `kind` of objective, and its settings.
    """

    distillation: dict


def build(config: DistillConfig) -> Stage:
    """Build the student with its objective and its sampler of one call per segment.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    settings = kinds.distillation(config.distillation)
    settings.check()
    calls, ends = settings.num_calls, (settings.logsnr_max, settings.logsnr_min)
    trained = Sampling(settings.sampler, calls, "logsnr", *ends)
    if config.sampling != trained:
        settings_text = ", ".join(
            f"{key} {getattr(trained, key)!r} (got {value!r})"
            for key, value in dataclasses.asdict(config.sampling).items()
            if value != getattr(trained, key)
        )
        raise ConfigError(
            "The sampling of a student must be what `distillation` trains it for: "
            f"sampling.{settings_text}. Change both, and distill another student."
        )
    schedule = kinds.schedule("decoder_schedule", config.decoder_schedule)
    grid = SegmentStarts(*ends, num_segments=calls)
    grid.ends(schedule)
    modules = decoder_modules(config)
    objective = functools.partial(
        settings.loss,
        denoise_image=NetworkFunctions(modules, training=False).denoise_image,
    )
    sampler = Sampler(settings.sampler, calls - 1, schedule, grid)
    stage = decoder_stage(config, modules, sampler)
    network = dataclasses.replace(
        stage.networks["decoder"], undifferentiated_passes=settings.LOSS_PASSES
    )
    image = (config.data.image_shape, jnp.float32)
    fields = {
        **dict.fromkeys(settings.IMAGE_FIELDS, image),
        **{name: ((), dtype) for name, dtype in settings.SCALAR_FIELDS.items()},
    }

    def init(root: jax.Array):
        return dict.fromkeys(settings.NETWORKS, stage.init(root)["decoder"])

    return dataclasses.replace(
        stage,
        init=init,
        objective=objective,
        held_out_objective=objective,
        batch={**stage.batch, "z_0": stage.batch["z_clean"], **fields},
        networks=dict.fromkeys(settings.NETWORKS, network),
        distillation=Distillation(settings, config.steps),
    )


def check_teacher(student: Stage, teacher: Stage, workdir: str) -> DiffusionDecoder:
    """Return the decoder that teaches.

    Raises:
      ConfigError: it is none that can teach, or has another network than the student.
    """
    assert teacher.codec is not None
    decoder = teacher.codec.decoder
    if not isinstance(decoder, DiffusionDecoder) or teacher.distillation is not None:
        raise ConfigError(
            "The teacher must have a diffusion decoder that was not distilled itself; "
            f"{workdir} is of stage {teacher.name!r}. Choose another stage1.workdir."
        )
    ours, theirs = (s.networks["decoder"].module for s in (student, teacher))
    free = ("parent", "name", "dtype", "attention", "remat", "dropout", "level_dropout")
    if differing := [
        field.name
        for field in dataclasses.fields(ours)
        if field.name not in free
        and getattr(ours, field.name) != getattr(theirs, field.name)
    ]:
        values = "; ".join(
            f"decoder.{n} is {getattr(theirs, n)} there and {getattr(ours, n)} here"
            for n in differing
        )
        raise ConfigError(
            f"The student must have the network of its teacher in {workdir}: {values}. "
            "Make them equal."
        )
    return decoder


STAGE = StageKind("distill", DistillConfig, build)
