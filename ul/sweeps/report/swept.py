"""Find the settings that differ between trials, and which of them order the plots."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ul.checkpoints.workdir import flatten
from ul.sweeps.report.rows import ConfigDifference, StageRun, TrialResult

# The location of a run's stage 1 differs between trials without being a setting.
PATH_KEYS = ("stage1.workdir",)
# The lines of a plot run along one of these if it is swept, else along the first swept key.
PREFERRED_LINE_KEYS = ("distillation.num_calls", "loss.weighting.factor")


def format_setting(value: Any) -> str:
    """Return a setting as people write it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def stage_name(stage: StageRun) -> str:
    """Return "stage 1" or "stage 2"."""
    return "stage 2" if stage.is_stage2 else "stage 1"


def _differ(values: Iterable[Any]) -> bool:
    return len({format_setting(v) for v in values}) > 1


def config_differences(trials: Sequence[TrialResult]) -> list[ConfigDifference]:
    """Return the config keys whose values differ between the trials that have the stage."""
    differences = []
    for name in ("stage 1", "stage 2"):
        configs: dict[str, dict[str, Any]] = {}
        for trial in trials:
            for stage in trial.stages:
                if stage.config is not None and stage_name(stage) == name:
                    configs[trial.name] = flatten(dict(stage.config))
        keys = {key for settings in configs.values() for key in settings}
        for key in sorted(keys - set(PATH_KEYS)):
            values = {
                trial: settings[key]
                for trial, settings in configs.items()
                if key in settings
            }
            if len(values) < len(configs) or _differ(values.values()):
                differences.append(ConfigDifference(name, key, values))
    return differences


def trial_overrides(trial: TrialResult) -> dict[str, Any]:
    """Return what the sweep set for a trial: its own overrides, else those of its stages."""
    if trial.overrides:
        return dict(trial.overrides)
    return {k: v for stage in trial.stages for k, v in stage.overrides.items()}


def swept_settings(
    trials: Sequence[TrialResult], differences: Sequence[ConfigDifference]
) -> dict[str, Mapping[str, Any]]:
    """Return each swept key with its values by trial.

    The swept keys are the overrides that differ between the trials. If no trial has
    overrides, they are the differences of the configs.
    """
    overrides = {trial.name: trial_overrides(trial) for trial in trials}
    keys = dict.fromkeys(key for chosen in overrides.values() for key in chosen)
    swept = {}
    for key in keys:
        values = {t: chosen[key] for t, chosen in overrides.items() if key in chosen}
        differs = len(values) < len(trials) or _differ(values.values())
        if key not in PATH_KEYS and differs:
            swept[key] = values
    if any(overrides.values()):
        return {_short_key(key, swept): values for key, values in swept.items()}
    settings: dict[str, Mapping[str, Any]] = {}
    for d in differences:
        if settings.get(d.key, d.values) == d.values:
            settings[d.key] = d.values
        else:
            settings[f"{d.stage}: {d.key}"] = d.values
    return settings


def _short_key(key: str, keys: Iterable[str]) -> str:
    """Drop the stage of "stage1:steps" unless another key then has the same name."""
    short = key.rpartition(":")[2]
    return short if sum(k.rpartition(":")[2] == short for k in keys) == 1 else key


def line_key(keys: Iterable[str]) -> str:
    """Return the key that runs along the lines of a plot, or "" if nothing is swept."""
    keys = list(keys)
    preferred = [key for key in keys if key.endswith(PREFERRED_LINE_KEYS)]
    return next(iter([*preferred, *keys]), "")


def series_and_label(
    settings: Mapping[str, Mapping[str, Any]], trial: str
) -> tuple[str, str]:
    """Return the name of the line that a trial is on, and the trial's label on it.

    The name is "" if there is only one line.
    """
    key = line_key(settings)
    series = ", ".join(
        f"{k} = {format_setting(values[trial])}"
        for k, values in settings.items()
        if k != key and trial in values
    )
    along_line = settings.get(key, {})
    return series, format_setting(along_line[trial]) if trial in along_line else ""
