"""All stages by name. A stage is a file of this package with a `STAGE`, its row here."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ul import stages
from ul.config import (
    AutoencoderConfig,
    GeneratorConfig,
    RunConfig,
    TrainConfig,
    make_absolute,
    to_dict,
    validate,
)
from ul.core.errors import ConfigError
from ul.stages import kinds
from ul.stages.stage import Stage, StageKind


def _discover() -> dict[str, StageKind]:
    names = (module.name for module in pkgutil.iter_modules(stages.__path__))
    modules = (
        importlib.import_module(f"{stages.__name__}.{name}")
        for name in names
        if name != "registry"
    )
    rows = (module.STAGE for module in modules if hasattr(module, "STAGE"))
    return {row.name: row for row in rows}


STAGES: Mapping[str, StageKind] = _discover()


def parse(config: Mapping[str, Any], accepts: type = RunConfig) -> Any:
    """Parse a config (nested dicts) into the frozen dataclass of its stage.

    accepts: a base class of the configs that the caller can use.

    Raises:
      ConfigError: unknown or missing key, wrong type, value out of range, or a stage
        that the caller cannot use.
    """
    name = str(config.get("stage"))
    if name not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}; got {name!r}.")
    if not issubclass(STAGES[name].config, accepts):
        usable = [n for n, row in STAGES.items() if issubclass(row.config, accepts)]
        raise ConfigError(
            f"stage must be one of {', '.join(usable)} here; got {name!r}."
        )
    completed = make_absolute(kinds.complete(dict(config)))
    parsed = validate(STAGES[name].config, completed)
    kinds.check(completed)
    if parsed.data.text != (0, 0) and name != "base":
        raise ConfigError(
            f"data.text must be (0, 0) for stage {name!r}, which has no text "
            f"conditioning; got {parsed.data.text}."
        )
    return parsed


def build(config: RunConfig) -> Stage:
    """Build the stage of a parsed config.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    return STAGES[config.stage].build(config)


def check_stage1(stage2: Stage, stage1: Stage, workdir: str) -> None:
    """Check that a stage 2 or a decoder fits the latents, images and noise of its stage 1.

    Raises:
      ConfigError: with both values.
    """
    assert stage1.codec is not None
    if stage2.separate_decoder is not None:
        level = ("latent_logsnr", stage2.separate_decoder.latent_logsnr)
    else:
        assert stage2.sampler is not None
        level = ("schedule.logsnr_max", stage2.sampler.schedule.logsnr_max)
    pairs = (
        ("latent_shape", stage2.latent_shape, stage1.latent_shape),
        ("data.image_shape", stage2.image_shape, stage1.image_shape),
        (*level, stage1.codec.latent_logsnr),
    )
    for key, value, required in pairs:
        if value != required:
            raise ConfigError(
                f"{key} must be {required}, the value of the stage-1 run {workdir}; got "
                f"{value}. Change it or choose another stage1.workdir."
            )


__all__ = [
    "STAGES",
    "AutoencoderConfig",
    "GeneratorConfig",
    "RunConfig",
    "TrainConfig",
    "build",
    "check_stage1",
    "parse",
    "to_dict",
]
