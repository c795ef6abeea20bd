"""From what a sweep file says to trials, every config of which training would take."""

import ast
import copy
import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ul import config
from ul.checkpoints.workdir import flatten
from ul.core.errors import ConfigError
from ul.stages import registry

NAME = re.compile(r"[a-z0-9]([-_.a-z0-9]{0,98}[a-z0-9])?")
# What another machine or a later look may want otherwise: no result depends on it.
FREE_KEYS = ("log", "validation", "checkpoint", "mesh", "watchdog", "data.threads")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A config by its name on the command line, what is changed in it, what that gives.

    workdir, below: relative to the sweep's directory; below is stage 1's.
    base: the config unchanged. resolved: what training will have.
    """

    config: str
    workdir: str
    overrides: dict[str, Any]
    base: dict
    resolved: dict
    below: str | None
    digest: str

    @property
    def steps(self) -> int:
        return self.resolved["steps"]


@dataclasses.dataclass(frozen=True)
class Trial:
    name: str
    overrides: dict[str, Any]
    stages: tuple[Stage, ...]


def expand(
    described: Sequence[dict], load: Callable[[str], dict], sets: Sequence[str] = ()
) -> list[Trial]:
    """The trials of a sweep file. `load(name)`: a config as nested dicts; `sets`:
    key=value for every stage that a key's prefix does not exclude.

    Raises:
      ConfigError: two trials of one name or one workdir, a name that is none, or what
        training would refuse; with the trial, the config and the key.
    """
    if not described:
        raise ConfigError("the sweep has no trials")
    parts = {"name", "overrides", "stages", "more"}
    if not all(isinstance(t, dict) and t.keys() == parts for t in described):
        raise ConfigError(
            "get_sweep() must return what experiments.sweeps.trials makes"
        )
    found: dict[str, dict] = {}
    for trial in described:
        name = trial["name"]
        if not NAME.fullmatch(name) or name == "shared":
            raise ConfigError(
                f"trial name {name!r}: use at most 100 of a-z, 0-9, '.', '_' and '-'; "
                "not 'shared'"
            )
        if name in found:
            raise ConfigError(
                f"two trials are named {name!r}: {found[name]['overrides']} and "
                f"{trial['overrides']}; give `trials` a `name`"
            )
        found[name] = trial
    pairs = [_pair(text) for text in sets]
    made = [_trial(trial, load, pairs) for trial in found.values()]
    _check_shared(made)
    return made


def _pair(text: str) -> tuple[str, Any]:
    """key=value as typed, for both stages unless it says which."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: give key=value")
    key = key if ":" in key else f"both:{key}"
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def _trial(trial: dict, load, pairs: list[tuple[str, Any]]) -> Trial:
    name, count = trial["name"], len(trial["stages"])
    own: list[dict[str, Any]] = [{} for _ in range(count)]
    points = [*trial["overrides"].items(), *trial["more"].items(), *pairs]
    for key, value in points:
        for i, short in _stages_of(key, count, name):
            own[i][short] = _plain(value)
    stages: list[Stage] = []
    for i, stage in enumerate(trial["stages"]):
        where = f"trial {name}, {stage['config']}"
        base = registry.plain(load(stage["config"]))
        below = stages[0] if i else None
        stages.append(_stage(where, stage, own[i], base, below))
    return Trial(
        name, {k: _plain(v) for k, v in trial["overrides"].items()}, (*stages,)
    )


def _stages_of(key: str, count: int, name: str) -> list[tuple[int, str]]:
    """Which stages a key is for, by number, and what it is called there."""
    whose, colon, short = key.rpartition(":")
    places = {"": (0,), "stage1": (0,), "stage2": (1,), "both": range(count)}
    if whose not in places:
        raise ConfigError(
            f"trial {name}: {key!r} begins with {whose!r}; known are stage1, stage2, both"
        )
    if max(places[whose]) >= count:
        raise ConfigError(f"trial {name}: {key!r}, but it has no stage 2")
    return [(i, short if colon else key) for i in places[whose]]


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _stage(
    where: str, stage: dict, overrides: dict, base: dict, below: Stage | None
) -> Stage:
    resolved = copy.deepcopy(base)
    try:
        for key, value in overrides.items():
            _override(resolved, key, value)
        if below:
            first = config.parse(below.resolved)
            resolved["stage1"]["workdir"] = below.workdir
            assert isinstance(first, config.Stage1Config)
            shape = registry.modules(first).latent_shape
            if "latent_shape" not in overrides and resolved["latent_shape"] != shape:
                overrides = overrides | {"latent_shape": list(shape)}
                resolved["latent_shape"] = shape
        parsed = config.parse(registry.plain(resolved))
        if below:
            assert isinstance(parsed, config.Stage2Config)
            assert isinstance(first, config.Stage1Config)
            registry.check_stage1(parsed, first)
        elif isinstance(parsed, config.Stage1Config):
            registry.stage1(parsed)
        if isinstance(parsed, config.GeneratorConfig):
            registry.latent_sampler(parsed)
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e
    made = json.loads(json.dumps(dataclasses.asdict(parsed)))
    return Stage(
        config=stage["config"],
        workdir=stage["workdir"],
        overrides=overrides,
        base=json.loads(json.dumps(base)),
        resolved=made,
        below=below.workdir if below else None,
        digest=_digest(made, below.digest if below else ""),
    )


def _override(resolved: dict, key: str, value: Any) -> None:
    """One key of a config, which must have it."""
    *sections, last = key.split(".")
    section: Any = resolved
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        near = difflib.get_close_matches(key, flatten(resolved), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"unknown key {key}{hint}")
    if isinstance(section[last], dict) or isinstance(value, dict) or value is None:
        raise ConfigError(f"{key} is {value!r}; a sweep changes single settings")
    section[last] = value


def lasting(resolved: dict) -> dict[str, Any]:
    """The settings that a result depends on, as dotted keys."""
    free = tuple(f"{key}." for key in FREE_KEYS)
    flat = flatten(resolved)
    return {k: v for k, v in flat.items() if not f"{k}.".startswith(free)}


def _digest(resolved: dict, below: str) -> str:
    """Of a config and of the stage 1 below it; not of where that lies."""
    settings = lasting(resolved)
    settings.pop("stage1.workdir", None)
    text = json.dumps([below, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_shared(trials: list[Trial]) -> None:
    """Raises ConfigError for stages that are not the same in one workdir."""
    first: dict[str, tuple[str, Stage]] = {}
    for trial in trials:
        for stage in trial.stages:
            name, other = first.setdefault(stage.workdir, (trial.name, stage))
            if other.digest != stage.digest:
                raise ConfigError(
                    f"trials {name} and {trial.name} share {stage.workdir}, and their "
                    "stage 1 is not the same"
                )
