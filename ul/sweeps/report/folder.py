"""A sweep's folder, read: which trials there are, and how far each has come."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from ul import config
from ul.checkpoints import store, workdir
from ul.core.errors import ConfigError, DataError, UserError
from ul.sweeps.report.rows import (
    DONE,
    FAILED,
    MISSING,
    PARTIAL,
    Record,
    Stage,
    Sweep,
    Trial,
)

# How deep below the folder a run directory is looked for: <trial>/<stage>.
DEPTH = 2
# What every evaluation has, of which type.
NEEDED = {"evaluation": str, "step": int, "weights": str, "seed": int}
# How a command that gave up ends its log; one that was interrupted did not fail.
ERROR = re.compile(
    r"(\w+Error|OutOfMemory|UnreadableStep|NoProgress|Stalled|PeerLost): "
)
LOG_END, LOG_LINES, MOST_SAID = 4096, 4, 200


def read(path: str) -> Sweep:
    """The sweep in this folder, with or without a sweep.json.

    Raises:
      ConfigError: there is no such folder.
      DataError: nothing in it is a run, or its sweep.json cannot be read.
    """
    root = epath.Path(path)
    if not root.is_dir():
        raise ConfigError(f"{path} is no folder; give the one of a sweep or of runs")
    listed = (root / "sweep.json").exists()
    name = root.resolve().name if "://" not in path else root.name
    title, code, trials = _listed(root) if listed else (name, "", _found(root, name))
    if all(t.state == MISSING for t in trials):
        what = "none of its trials has begun" if trials else "no run's config.json"
        raise DataError(
            f"{path} has nothing to report: {what}; train there first (launch.sweep or "
            "launch.train)"
        )
    return Sweep(path, title, code, tuple(trials), listed)


def _listed(root: epath.Path) -> tuple[str, str, list[Trial]]:
    """What sweep.json says: its file, the code, the trials in its order."""
    path = root / "sweep.json"
    try:
        plan = json.loads(path.read_text())
        trials = [
            _trial(
                root,
                str(t["name"]),
                dict(t["overrides"]),
                [
                    (str(s["config"]), str(s["workdir"]), dict(s["overrides"]))
                    for s in t["stages"]
                ],
            )
            for t in plan["trials"]
        ]
        names = [t.name for t in trials]
        if len(set(names)) < len(names):
            raise ValueError("two trials have one name")
        return str(plan["sweep"]), str(plan["code_version"]), trials
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"{path} cannot be read as a sweep ({type(e).__name__}: {e}); run "
            "launch.sweep again, or move it away to report the runs below it"
        ) from e


def _trial(root, name, overrides, places) -> Trial:
    stages = tuple(_stage(root, *place) for place in places)
    return _judged(root, Trial(name, overrides, stages))


def _judged(root: epath.Path, trial: Trial) -> Trial:
    """The trial with its state, and why it is not done: what its runs lack, and the
    error that its log ends with."""
    reasons = [f"{s.workdir}: {what}" for s in trial.stages for what in _lacks(s)]
    ended = _error(root / f"{trial.name}.log") if reasons else None
    if ended or any(s.broken for s in trial.stages):
        state, reasons = FAILED, [*([ended] if ended else []), *reasons]
    elif all(s.config is None for s in trial.stages):
        state = MISSING
    else:
        state = PARTIAL if reasons else DONE
    return dataclasses.replace(trial, state=state, reasons=tuple(reasons))


def _error(log: epath.Path) -> str | None:
    """The error that the trial's last command ended with, as launch/lib/cli.py says it."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - LOG_END))
            end = f.read().decode(errors="replace")
    except OSError:
        return None
    lines = [line for line in re.split(r"[\r\n]+", end) if line.strip()]
    return next((x[:MOST_SAID] for x in lines[-LOG_LINES:] if ERROR.match(x)), None)


def _lacks(stage: Stage) -> Iterator[str]:
    """What keeps a run from being done, one phrase each."""
    if stage.config is None:
        yield from stage.problems or ("not begun",)
        return
    yield from stage.problems
    if stage.steps is not None and stage.trained < stage.steps:
        yield f"{stage.trained} of {stage.steps} steps"
    newest = max((r.numbers["step"] for r in stage.records), default=None)
    if newest is None:
        yield "not evaluated"
    elif newest < stage.trained:
        yield f"evaluated at step {newest}, not at {stage.trained}"


def _stage(root: epath.Path, label: str, place: str, overrides: dict) -> Stage:
    """One run directory; what cannot be read is a problem, never an error."""
    where = root / place
    stage = Stage(label, place, overrides)
    if not (where / "config.json").exists():
        return stage
    problems: list[str] = []
    try:
        saved = workdir.load_run_record(where)
        if not isinstance(saved["config"], dict) or not isinstance(
            saved["provenance"], dict
        ):
            raise ConfigError(f"{where}/config.json has no config")
    except (ConfigError, TypeError) as e:
        return dataclasses.replace(stage, problems=(_short(e),), broken=True)
    parsed = None
    try:
        parsed = config.parse(saved["config"])
    except (UserError, AttributeError, TypeError) as e:
        problems.append(f"its config is not of this code: {_short(e)}")
    try:
        trained = max(store.verified_steps(where), default=0)
    except (OSError, ValueError) as e:
        trained = 0
        problems.append(f"its checkpoints cannot be listed: {_short(e)}")
    records = _records(root, place, problems)
    return dataclasses.replace(
        stage,
        config=saved["config"],
        parsed=parsed,
        provenance=saved["provenance"],
        code=str(saved.get("code_version", "")),
        trained=trained,
        records=tuple(records),
        problems=tuple(problems),
    )


def _records(root: epath.Path, place: str, problems: list[str]) -> list[Record]:
    """A run's evaluations, oldest first; damaged ones are added to the problems."""
    found = []
    for file in sorted((root / place / "evals").glob("*.json")):
        try:
            numbers = json.loads(file.read_text())
            if not isinstance(numbers, dict):
                raise ValueError("it is no object")
            for key, kind in NEEDED.items():
                if not isinstance(numbers.get(key), kind):
                    raise ValueError(f"it has no {key}")
            _check_types(numbers)
        except (OSError, ValueError) as e:
            problems.append(f"evals/{file.name} cannot be read: {_short(e)}")
            continue
        found.append(Record(_below(place, f"evals/{file.name}"), numbers))
    return sorted(found, key=lambda r: str(r.numbers.get("written", "")))


def _check_types(numbers: dict[str, Any]) -> None:
    for key, kinds in {"guidance": int | float, "num_examples": int}.items():
        if not isinstance(numbers.get(key), kinds | None):
            raise ValueError(f"its {key} is no number")
    for key in ("printed", "skipped"):
        if not isinstance(numbers.get(key, {}), dict):
            raise ValueError(f"its {key} is no object")


def _below(place: str, rest: str) -> str:
    return rest if place == "." else f"{place}/{rest}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_SAID]


def _run_dirs(root: epath.Path, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Run directories relative to the folder, itself (".") included, by name."""
    if (root / "config.json").exists():
        yield prefix or "."
        return
    if depth < DEPTH:
        for child in sorted(root.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                name = f"{prefix}/{child.name}" if prefix else child.name
                yield from _run_dirs(child, name, depth + 1)


def _found(root: epath.Path, name: str) -> list[Trial]:
    """Trials of a folder without sweep.json: each stage 2 with the stage 1 it names,
    and every run that is nobody's stage 1 by itself."""
    stages = {place: _stage(root, place, place, {}) for place in _run_dirs(root)}
    below: dict[str, str] = {}
    for place, stage in stages.items():
        if isinstance(stage.parsed, config.Stage2Config):
            one = _stage1_of(root, place, stage, stages)
            below |= {place: one} if one else {}
    chains = [
        (below[place], place) if place in below else (place,)
        for place in stages
        if place not in below.values()
    ]
    return [
        _judged(
            root,
            Trial(
                name if chain == (".",) else _shown(chain, stages),
                {},
                tuple(stages[place] for place in chain),
            ),
        )
        for chain in chains
    ]


def _stage1_of(root, place: str, stage: Stage, stages) -> str | None:
    """The run in this folder that a stage 2 stands on: by its whole path, or, if the
    folder was moved, by the end of it."""
    assert isinstance(stage.parsed, config.Stage2Config)
    wanted = os.path.normpath(stage.parsed.stage1.workdir or "")
    others = [p for p in stages if p != place]
    exact = [p for p in others if os.path.abspath(root / p) == os.path.abspath(wanted)]
    ends = [p for p in others if f"/{wanted}".endswith(f"/{p}")]
    beside = [p for p in ends if os.path.dirname(p) == os.path.dirname(place)]
    found = exact or beside or ends
    return found[0] if found else None


def _shown(chain: tuple[str, ...], stages) -> str:
    """What a trial of a folder is called: its own folder if no other run lies in it,
    else its last run's."""
    parent = os.path.dirname(chain[-1])
    inside = {place for place in stages if os.path.dirname(place) == parent}
    return parent if parent and inside == set(chain) else chain[-1]
