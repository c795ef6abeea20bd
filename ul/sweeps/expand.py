"""Expand a sweep file into trials, and validate every config as training would."""

import ast
import copy
import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ul.checkpoints.workdir import flatten, flatten_without
from ul.core.errors import ConfigError
from ul.stages import kinds, registry

NAME = re.compile(r"[a-z0-9]([-_.a-z0-9]{0,98}[a-z0-9])?")
# The directory of shared stage 1s; a trial of this name would write into it.
RESERVED_NAME = "shared"
DESCRIPTION_KEYS = {"name", "overrides", "stages", "more"}
# Keys on which no result depends; they may differ between machines and between starts.
RESULT_NEUTRAL_KEYS = (
    "log",
    "validation",
    "checkpoint",
    "mesh",
    "watchdog",
    "data.threads",
    "loss.rate_floor_bpp",
)


@dataclasses.dataclass(frozen=True)
class TrialStage:
    """One training run of a trial.

    config: name of the config on the command line, such as "experiments/x.py:stage1".
    workdir, stage1_workdir: relative to the sweep's directory; None for a stage 1.
    overrides: keys that the sweep changes in the config.
    base_config: the config without the overrides.
    resolved_config: the config that training gets.
    digest: changes with everything on which the result depends, also in stage 1.
    """

    config: str
    workdir: str
    overrides: dict[str, Any]
    base_config: dict
    resolved_config: dict
    stage1_workdir: str | None
    digest: str

    @property
    def steps(self) -> int:
        """Number of optimizer updates."""
        return self.resolved_config["steps"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of a sweep: a stage 1, and a stage 2 on its latents if there is one."""

    name: str
    overrides: dict[str, Any]
    stages: tuple[TrialStage, ...]


def expand(
    descriptions: Sequence[dict],
    load: Callable[[str], dict],
    assignments: Sequence[str] = (),
) -> list[Trial]:
    """Return the trials that a sweep file describes.

    `load(name)` returns a config as nested dicts. `assignments` are key=value pairs for all
    stages; a prefix as in stage2:key=value limits them to one stage.

    Raises:
      ConfigError: two trials have the same name or different stages in one workdir, a name
        is invalid, or training would refuse a config. The message names the trial, the
        config and the key.
    """
    if not descriptions:
        raise ConfigError(
            "A sweep must have at least one trial, and get_sweep() returned no trials."
        )
    for description in descriptions:
        if not isinstance(description, dict) or description.keys() != DESCRIPTION_KEYS:
            raise ConfigError(
                "get_sweep() must return the result of experiments.sweeps.trials; got "
                f"{description!r} as a trial."
            )
    _check_names(descriptions)
    pairs = [_parse_assignment(text) for text in assignments]
    trials = [_expand_trial(d, load, pairs) for d in descriptions]
    _check_shared_workdirs(trials)
    return trials


def _check_names(descriptions: Sequence[dict]) -> None:
    """Raises ConfigError for a name that is invalid or that two trials have."""
    overrides: dict[str, Any] = {}
    for description in descriptions:
        name = description["name"]
        if not NAME.fullmatch(name) or name == RESERVED_NAME:
            raise ConfigError(
                "A trial name must have 1 to 100 characters of a-z, 0-9, '.', '_' and '-', "
                f"begin and end with a letter or digit, and not be {RESERVED_NAME!r}; got "
                f"{name!r}."
            )
        if name in overrides:
            raise ConfigError(
                f"Trial names must be unique; two trials are named {name!r}: "
                f"{overrides[name]} and {description['overrides']}. Pass `name` to "
                "experiments.sweeps.trials."
            )
        overrides[name] = description["overrides"]


def _parse_assignment(text: str) -> tuple[str, Any]:
    """Parse key=value; a key without a stage prefix is for both stages."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set must have the form key=value; got {text!r}.")
    key = key if ":" in key else f"both:{key}"
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def _expand_trial(
    description: dict, load: Callable[[str], dict], pairs: list[tuple[str, Any]]
) -> Trial:
    name, num_stages = description["name"], len(description["stages"])
    overrides: list[dict[str, Any]] = [{} for _ in range(num_stages)]
    points = [*description["overrides"].items(), *description["more"].items(), *pairs]
    for key, value in points:
        for i, stage_key in _stages_of_key(key, num_stages, name):
            overrides[i][stage_key] = _tuples_to_lists(value)
    stages: list[TrialStage] = []
    for i, stage in enumerate(description["stages"]):
        base_config = kinds.complete(registry.to_dict(load(stage["config"])))
        stage1 = stages[0] if i else None
        try:
            stages.append(_expand_stage(stage, overrides[i], base_config, stage1))
        except ConfigError as e:
            raise ConfigError(f"Trial {name}, {stage['config']}: {e}") from e
    own = {k: _tuples_to_lists(v) for k, v in description["overrides"].items()}
    return Trial(name, own, tuple(stages))


def _stages_of_key(key: str, num_stages: int, trial: str) -> list[tuple[int, str]]:
    """Return the index of each stage that a key is for, and the key without its prefix."""
    prefix, _, stage_key = key.rpartition(":")
    indices = {"": (0,), "stage1": (0,), "stage2": (1,), "both": range(num_stages)}
    if prefix not in indices:
        raise ConfigError(
            f"Trial {trial}: the prefix of a key must be one of stage1, stage2, both; got "
            f"{key!r}."
        )
    if max(indices[prefix]) >= num_stages:
        raise ConfigError(
            f"Trial {trial}: {key!r} needs a stage 2, which this trial does not have."
        )
    return [(i, stage_key) for i in indices[prefix]]


def _tuples_to_lists(value: Any) -> Any:
    """Return a value as JSON stores it."""
    if isinstance(value, list | tuple):
        return [_tuples_to_lists(v) for v in value]
    return value


def _expand_stage(
    stage: dict, overrides: dict, base_config: dict, stage1: TrialStage | None
) -> TrialStage:
    """Apply the overrides and validate the result. Raises ConfigError as training would."""
    resolved = copy.deepcopy(base_config)
    for key, value in overrides.items():
        # Before the other keys, which may be settings of the new kind.
        if key.endswith(".kind"):
            resolved = kinds.switch(resolved, key.removesuffix(".kind"), value)
    for key, value in overrides.items():
        _override(resolved, key, value)
    if stage1:
        built_stage1 = registry.build(registry.parse(stage1.resolved_config))
        resolved["stage1"]["workdir"] = stage1.workdir
        shape = built_stage1.latent_shape
        if "latent_shape" not in overrides and resolved["latent_shape"] != shape:
            overrides = overrides | {"latent_shape": list(shape)}
            resolved["latent_shape"] = shape
    parsed = registry.parse(registry.to_dict(resolved), registry.TrainConfig)
    built = registry.build(parsed)
    if stage1:
        registry.check_stage1(built, built_stage1, stage1.workdir)
    resolved_config = json.loads(json.dumps(dataclasses.asdict(parsed)))
    return TrialStage(
        config=stage["config"],
        workdir=stage["workdir"],
        overrides=overrides,
        base_config=json.loads(json.dumps(base_config)),
        resolved_config=resolved_config,
        stage1_workdir=stage1.workdir if stage1 else None,
        digest=_digest(resolved_config, stage1.digest if stage1 else ""),
    )


def _override(resolved: dict, key: str, value: Any) -> None:
    """Set one key of a config. Raises ConfigError if the config does not have it."""
    *sections, last = key.split(".")
    section: Any = resolved
    for name in sections:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        near = difflib.get_close_matches(key, flatten(resolved), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"Unknown key {key}.{hint}")
    if isinstance(section[last], dict) or isinstance(value, dict) or value is None:
        raise ConfigError(
            "An override of a sweep must set one setting, not a section, to a value that is "
            f"not None; got {key} = {value!r}. Name a key inside the section, with its value."
        )
    section[last] = value


def result_settings(settings: dict) -> dict[str, Any]:
    """Return the settings on which a result depends, with dotted keys."""
    return flatten_without(settings, RESULT_NEUTRAL_KEYS)


def _digest(resolved_config: dict, stage1_digest: str) -> str:
    """Return a digest of a config and its stage 1, which may lie in any directory."""
    settings = result_settings(resolved_config)
    settings.pop("stage1.workdir", None)
    text = json.dumps([stage1_digest, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_shared_workdirs(trials: list[Trial]) -> None:
    """Raises ConfigError if two trials have different stages in one workdir."""
    owners: dict[str, tuple[str, TrialStage]] = {}
    for trial in trials:
        for stage in trial.stages:
            owner, other = owners.setdefault(stage.workdir, (trial.name, stage))
            if other.digest != stage.digest:
                raise ConfigError(
                    f"Trials that share a workdir must have the same stage 1; {owner} and "
                    f"{trial.name} share {stage.workdir} with different configs. Give the "
                    "differing settings to stage 2, or do not share stage 1."
                )
