"""The sections of configs whose `kind` chooses a constructor, and what they build."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp

from ul.config import REQUIRED, Kinds, RunConfig
from ul.config.schema import Sampling
from ul.config.validation import required_error
from ul.core import processes
from ul.core.errors import ConfigError
from ul.data.sources.registry import SOURCES
from ul.diffusion.samplers import EXTRAPOLATING, METHODS, Sampler
from ul.diffusion.sampling_grids import GRIDS, Adaptive, UniformTime
from ul.diffusion.schedules import SCHEDULES, Cosine, Schedule
from ul.diffusion.weightings import WEIGHTINGS
from ul.models import registry as models
from ul.objectives.consistency import Consistency
from ul.objectives.moment_matching import MomentMatching
from ul.objectives.segments import DistillationObjective
from ul.objectives.single_stage import MAX_LOGSNR_KINDS

log = logging.getLogger("ul")

NETWORKS = ("encoder", "prior", "decoder", "base")
_LATENT_DENOISERS = Kinds(
    models.LATENT_DENOISERS, ("dtype", "num_classes", "text_channels")
)
# By the path of the section. A config has those of its stage.
SECTIONS: Mapping[str, Kinds] = {
    "data.source": Kinds(SOURCES, ("split", "shape")),
    "encoder": Kinds(models.ENCODERS, ("dtype",)),
    "decoder": Kinds(models.IMAGE_DENOISERS, ("dtype",)),
    "prior": _LATENT_DENOISERS,
    "base": _LATENT_DENOISERS,
    "schedule": Kinds(SCHEDULES),
    "prior_schedule": Kinds(SCHEDULES),
    "decoder_schedule": Kinds(SCHEDULES),
    "loss.weighting": Kinds(WEIGHTINGS),
    "max_logsnr": Kinds(MAX_LOGSNR_KINDS),
    "distillation": Kinds(
        {"consistency": Consistency, "moment_matching": MomentMatching}
    ),
}
AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def _get(config: Any, path: str) -> dict[str, Any] | None:
    """Return the section at `path`, or None if the config does not have it."""
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) and name in config else None
    return config if isinstance(config, dict) else None


def _replace(config: dict[str, Any], path: str, section: dict) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return config | {name: _replace(config[name], rest, section) if rest else section}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config whose sections with a `kind` have the defaults of what they omit.

    Raises:
      ConfigError: an unknown kind.
    """
    return _map_sections(config, lambda rows, path, s: rows.complete(path, s))


def switch(config: dict[str, Any], path: str, kind: Any) -> dict[str, Any]:
    """Return a config whose section at `path` is of another kind, from its defaults.

    Settings that have no default and that the section lacks are None.

    Raises:
      ConfigError: an unknown kind.
    """

    def switched(rows: Kinds, here: str, section: dict) -> dict:
        if here != path or section.get("kind") == kind:
            return section
        settings = rows.switch(path, section, kind)
        return {k: None if v is REQUIRED else v for k, v in settings.items()}

    return _map_sections(config, switched)


def _map_sections(
    config: dict[str, Any], fn: Callable[[Kinds, str, dict], dict]
) -> dict[str, Any]:
    """Replace every section that has a `kind` by fn(rows, path, section)."""
    for path, rows in SECTIONS.items():
        if (section := _get(config, path)) is not None:
            config = _replace(config, path, fn(rows, path, section))
    return config


def check(config: dict[str, Any]) -> None:
    """Check every section with a `kind`.

    Raises:
      ConfigError: unknown kind, unknown or missing setting, wrong type.
    """
    for path, rows in SECTIONS.items():
        if (section := _get(config, path)) is not None:
            rows.check(path, section)


def check_required(config: RunConfig) -> None:
    """Check that the settings that only the user knows, such as paths, are set.

    `check` lets them be None, because a plan reads no data.

    Raises:
      ConfigError: one is not set.
    """
    settings = dataclasses.asdict(config)
    sections = {path: _get(settings, path) or {} for path in SECTIONS}
    if "stage1" in settings:
        sections["stage1"] = {"workdir": settings["stage1"]["workdir"]}
    for path, section in sections.items():
        for name, value in section.items():
            if value is None:
                raise required_error(f"{path}.{name}")


def schedule(path: str, section: dict) -> Schedule:
    """Construct a noise schedule.

    Raises:
      ConfigError: its ends are not in order.
    """
    constructed = SECTIONS[path].build(path, section)
    if constructed.logsnr_max <= constructed.logsnr_min:
        raise ConfigError(
            f"{path}.logsnr_max must be above logsnr_min; got {constructed.logsnr_max} "
            f"and {constructed.logsnr_min}."
        )
    return constructed


def weighting(section: dict) -> Callable:
    """Construct the weighting of a section `loss.weighting`."""
    return SECTIONS["loss.weighting"].build("loss.weighting", section)


def distillation(section: dict) -> DistillationObjective:
    """Construct the objective of a section `distillation`."""
    return SECTIONS["distillation"].build("distillation", section)


def sampler(sampling: Sampling, schedule: Schedule) -> Sampler:
    """Return the sampler of a section `sampling` for denoisers of a schedule.

    Raises:
      ConfigError: an unknown sampler or grid, or ends outside of the schedule.
    """
    for name, known in (("kind", METHODS), ("grid", GRIDS)):
        if (value := getattr(sampling, name)) not in known:
            raise ConfigError(
                f"sampling.{name} must be one of {sorted(known)}; got {value!r}."
            )
    ends = sampling.logsnr_max, sampling.logsnr_min
    grid = GRIDS[sampling.grid](*ends)
    if isinstance(grid, Adaptive):
        grid = dataclasses.replace(grid, nats_per_logsnr=sampling.nats_per_logsnr)
    grid.ends(schedule)
    is_uniform_in_cosine_time = isinstance(grid, UniformTime) and isinstance(
        schedule, Cosine
    )
    if sampling.kind in EXTRAPOLATING and is_uniform_in_cosine_time:
        _warn_once(
            f"sampling.kind {sampling.kind} extrapolates from one step to the next, and the "
            "outer steps of a cosine schedule are too wide for that: its error was larger "
            "than that of ddim. Set sampling.grid=logsnr"
        )
    if isinstance(grid, Adaptive) and not grid.nats_per_logsnr:
        _warn_once(
            "sampling.grid=adaptive is uniform in log-SNR until it is measured; run python -m "
            "ul samplers --adapt --workdir WORKDIR"
        )
    return Sampler(sampling.kind, sampling.num_steps, schedule, grid)


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning about a config, whose stage is built several times in a run."""
    if processes.is_first():
        log.warning(message)


def network(path: str, section: dict, dtype: str, **supplied: Any) -> Any:
    """Construct a network; the caller must call its `check`."""
    return SECTIONS[path].build(path, section, dtype=jnp.dtype(dtype), **supplied)


def _transformers(config: RunConfig) -> list[str]:
    names = [name for name in NETWORKS if hasattr(config, name)]
    return [name for name in names if "attention" in getattr(config, name)]


def networks_with_attention(config: RunConfig, implementation: str) -> list[str]:
    """Return the names of the networks whose setting is this implementation of attention."""
    names = _transformers(config)
    return [n for n in names if getattr(config, n)["attention"] == implementation]


def with_networks(config: AnyConfig, **settings: Any) -> AnyConfig:
    """Return the config with these settings in every network that has them."""
    sections = {n: getattr(config, n) for n in NETWORKS if hasattr(config, n)}
    changed = {
        name: section | {k: v for k, v in settings.items() if k in section}
        for name, section in sections.items()
    }
    return dataclasses.replace(config, **changed)


def with_attention(config: AnyConfig, implementation: str) -> AnyConfig:
    """Return the config with one implementation of attention for all networks."""
    return with_networks(config, attention=implementation)
