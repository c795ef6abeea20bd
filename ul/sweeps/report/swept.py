"""What differs between trials: settings, and which of them make the lines of a plot."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ul.checkpoints.workdir import flatten
from ul.sweeps.report.rows import Difference, Stage, Trial

# Where a run lies, and which trial's stage 1 is below it: never the same, and no setting.
PLACES = ("stage1.workdir",)
# Along a line runs the loss factor if it is swept, else the first key.
ALONG = "loss.weighting.factor"


def text(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def role(stage: Stage) -> str:
    return "stage 2" if stage.on_latents else "stage 1"


def differences(trials: Sequence[Trial]) -> list[Difference]:
    """Keys of the configs whose values differ between the trials that have the stage."""
    found = []
    for which in ("stage 1", "stage 2"):
        flat: dict[str, dict[str, Any]] = {}
        for trial in trials:
            for stage in trial.stages:
                if stage.config is not None and role(stage) == which:
                    flat[trial.name] = flatten(dict(stage.config))
        keys = sorted({key for one in flat.values() for key in one} - set(PLACES))
        for key in keys:
            values = {name: one[key] for name, one in flat.items() if key in one}
            if len(values) < len(flat) or len({text(v) for v in values.values()}) > 1:
                found.append(Difference(which, key, values))
    return found


def overrides(trial: Trial) -> dict[str, Any]:
    """What the sweep set for a trial, in its order: the trial's, else its stages'."""
    if trial.overrides:
        return dict(trial.overrides)
    return {k: v for stage in trial.stages for k, v in stage.overrides.items()}


def table(
    trials: Sequence[Trial], found: Sequence[Difference]
) -> dict[str, Mapping[str, Any]]:
    """Each swept key, with its value by trial: the overrides that are not the same in all
    trials, or, where there are none, the differences of the configs."""
    chosen = {trial.name: overrides(trial) for trial in trials}
    keys = list(dict.fromkeys(key for one in chosen.values() for key in one))
    columns = {
        key: {name: one[key] for name, one in chosen.items() if key in one}
        for key in keys
        if key not in PLACES
    }
    varied = {
        key: values
        for key, values in columns.items()
        if len(values) < len(trials) or len({text(v) for v in values.values()}) > 1
    }
    if varied or any(chosen.values()):
        return {_short(key, varied): values for key, values in varied.items()}
    both: dict[str, Mapping[str, Any]] = {}
    for d in found:
        if both.get(d.key, d.values) == d.values:
            both[d.key] = d.values
        else:
            both[f"{d.stage}: {d.key}"] = d.values
    return both


def _short(key: str, keys: Iterable[str]) -> str:
    """Without the stage that it is for ("stage1:loss.weighting.bias"), if no other is so called."""
    short = key.rpartition(":")[2]
    return short if sum(k.rpartition(":")[2] == short for k in keys) == 1 else key


def along(keys: Mapping[str, Any]) -> str:
    """The key that runs along the lines of a plot; "" if nothing is swept."""
    return next((k for k in keys if k.endswith(ALONG)), next(iter(keys), ""))


def lines(keys: Mapping[str, Mapping[str, Any]], trial: str) -> tuple[str, str]:
    """The line that a trial is on ("" if there is but one), and its place along it."""
    main = along(keys)
    series = ", ".join(
        f"{k} = {text(values[trial])}"
        for k, values in keys.items()
        if k != main and trial in values
    )
    here = keys.get(main, {})
    return series, text(here[trial]) if trial in here else ""
