"""Read a sweep's folder: which trials it has, and how far each of them has come."""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from ul.checkpoints import reading, workdir
from ul.core import files, sealed_json
from ul.core.errors import ConfigError, DataError, UserError
from ul.data.datasets import Datasets
from ul.stages import registry
from ul.sweeps.report.rows import (
    DONE,
    FAILED,
    MISSING,
    PARTIAL,
    EvaluationRecord,
    StageRun,
    SweepRecord,
    TrialResult,
)

# How deep in the folder a run directory may be: <trial>/<stage>.
MAX_DEPTH = 2
# Fields that every evaluation has, with their types.
REQUIRED_FIELDS = {"evaluation": str, "step": int, "weights": str, "seed": int}
# The last line that a failed command logs. An interrupted command did not fail.
ERROR_LINE = re.compile(
    r"(\w+Error|OutOfMemory|UnreadableStep|NoProgress|Stalled|PeerLost): "
)
LOG_TAIL_BYTES, LOG_TAIL_LINES, MAX_MESSAGE_LENGTH = 4096, 4, 200


def read_sweep(path: str) -> SweepRecord:
    """Read the sweep in this folder, with or without a sweep.json.

    Raises:
      ConfigError: the folder does not exist.
      DataError: the folder contains no run, or its sweep.json cannot be read.
    """
    root = epath.Path(path)
    if not files.is_directory(root):
        raise ConfigError(
            f"No folder found in {path!r}. Pass the folder of a sweep or of runs."
        )
    has_sweep_json = files.exists(root / "sweep.json")
    if has_sweep_json:
        title, code, trials = _trials_from_sweep_json(root)
    else:
        title, code = root.resolve().name if "://" not in path else root.name, ""
        trials = _trials_from_run_dirs(root, title)
    if all(t.state == MISSING for t in trials):
        problem = "none of its trials has started" if trials else "it contains no run"
        raise DataError(
            f"There is nothing to report in {path!r}: {problem}. Train there first with "
            "python -m ul sweep or python -m ul train."
        )
    return SweepRecord(path, title, code, tuple(trials), has_sweep_json)


def _trials_from_sweep_json(root: epath.Path) -> tuple[str, str, list[TrialResult]]:
    """Return the sweep's name, the code version, and the trials in the file's order."""
    path = root / "sweep.json"
    try:
        content = sealed_json.unseal(files.read_text(path))
        trials = [
            _read_trial(
                root,
                str(trial["name"]),
                dict(trial["overrides"]),
                [
                    (str(s["config"]), str(s["workdir"]), dict(s["overrides"]))
                    for s in trial["stages"]
                ],
            )
            for trial in content["trials"]
        ]
        names = [t.name for t in trials]
        if len(set(names)) < len(names):
            raise ValueError("two trials have the same name")
        return str(content["sweep"]), str(content["code_version"]), trials
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"{path} must describe a sweep, but cannot be read "
            f"({type(e).__name__}: {e}). Run python -m ul sweep again, or move the file "
            "away to report the runs in the folder."
        ) from e


def _read_trial(root, name, overrides, stages) -> TrialResult:
    runs = tuple(_read_stage_run(root, *stage) for stage in stages)
    return _with_state(root, TrialResult(name, overrides, runs))


def _with_state(root: epath.Path, trial: TrialResult) -> TrialResult:
    """Return the trial with its state and the reasons why it is not done.

    The reasons are the error at the end of its log and what its runs lack.
    """
    reasons = [f"{s.workdir}: {lack}" for s in trial.stages for lack in _lacks(s)]
    error = _last_error(root / f"{trial.name}.log") if reasons else None
    if error or any(s.broken for s in trial.stages):
        state, reasons = FAILED, [*([error] if error else []), *reasons]
    elif all(s.config is None for s in trial.stages):
        state = MISSING
    else:
        state = PARTIAL if reasons else DONE
    return dataclasses.replace(trial, state=state, reasons=tuple(reasons))


def _last_error(log: epath.Path) -> str | None:
    """Return the error line at the end of a trial's log, if its last command failed."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            tail = f.read().decode(errors="replace")
    except OSError:
        return None
    lines = [line for line in re.split(r"[\r\n]+", tail) if line.strip()]
    errors = (line for line in lines[-LOG_TAIL_LINES:] if ERROR_LINE.match(line))
    return next((line[:MAX_MESSAGE_LENGTH] for line in errors), None)


def _lacks(stage: StageRun) -> Iterator[str]:
    """Yield what keeps a run from being done, one phrase each."""
    if stage.config is None:
        yield from stage.problems or ("not started",)
        return
    yield from stage.problems
    total = stage.configured_steps
    if total is not None and stage.trained_steps < total:
        yield f"{stage.trained_steps} of {total} steps"
    newest = max((r.fields["step"] for r in stage.records), default=None)
    if newest is None:
        yield "not evaluated"
    elif newest < stage.trained_steps:
        yield f"evaluated at step {newest}, but trained to step {stage.trained_steps}"


def _read_stage_run(
    root: epath.Path, label: str, directory: str, overrides: dict
) -> StageRun:
    """Read one run directory; what cannot be read becomes a problem, never an error."""
    path = root / directory
    stage = StageRun(label, directory, overrides)
    if not files.exists(path / "config.json"):
        return stage
    problems: list[str] = []
    try:
        saved = workdir.load_run_record(path)
        if not isinstance(saved["config"], dict) or not isinstance(
            saved["provenance"], dict
        ):
            raise ConfigError(f"{path}/config.json has no config or no provenance")
    except (ConfigError, TypeError) as e:
        return dataclasses.replace(stage, problems=(_one_line(e),), broken=True)
    built: dict[str, Any] = {}
    try:
        config = registry.parse(registry.to_dict(saved["config"]))
        built = {
            "stage": registry.build(config),
            "datasets": Datasets.from_config(config),
            "batch_size": getattr(config, "batch_size", 0),
            "configured_steps": getattr(config, "steps", None),
        }
    except (UserError, AttributeError, TypeError) as e:
        problems.append(f"this version of the code rejects its config: {_one_line(e)}")
    try:
        trained_steps = max(reading.verified_steps(path), default=0)
    except (OSError, ValueError) as e:
        trained_steps = 0
        problems.append(f"its checkpoints cannot be listed: {_one_line(e)}")
    records = _read_evaluations(root, directory, problems)
    return dataclasses.replace(
        stage,
        config=saved["config"],
        **built,
        provenance=saved["provenance"],
        code=str(saved.get("code_version", "")),
        trained_steps=trained_steps,
        records=tuple(records),
        problems=tuple(problems),
    )


def _read_evaluations(
    root: epath.Path, directory: str, problems: list[str]
) -> list[EvaluationRecord]:
    """Return a run's evaluations, oldest first; damaged ones are added to the problems."""
    records = []
    folder = root / directory / "evals"
    for name in files.names(folder, ".json"):
        path = f"evals/{name}"
        try:
            fields = sealed_json.unseal(files.read_text(folder / name))
            _check_fields(fields)
        except (OSError, ValueError) as e:
            problems.append(f"{path} cannot be read: {_one_line(e)}")
            continue
        records.append(
            EvaluationRecord(
                path if directory == "." else f"{directory}/{path}", fields
            )
        )
    return sorted(records, key=lambda r: str(r.fields.get("date", "")))


def _check_fields(fields: Any) -> None:
    """Raise ValueError unless the content of an evaluation has fields of the right types."""
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    for key, kind in REQUIRED_FIELDS.items():
        if not isinstance(fields.get(key), kind):
            raise ValueError(f"its {key} is missing or not a {kind.__name__}")
    for key, kinds in {"guidance": int | float, "num_examples": int}.items():
        if not isinstance(fields.get(key), kinds | None):
            raise ValueError(f"its {key} is not a number")
    for key in ("titles", "skipped"):
        if not isinstance(fields.get(key, {}), dict):
            raise ValueError(f"its {key} is not a JSON object")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_MESSAGE_LENGTH]


def _run_dirs(root: epath.Path, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the run directories in the folder, itself (".") included, sorted by name."""
    if files.exists(root / "config.json"):
        yield prefix or "."
        return
    if depth < MAX_DEPTH:
        for child in files.names(root):
            if files.is_directory(root / child) and not child.startswith("."):
                name = f"{prefix}/{child}" if prefix else child
                yield from _run_dirs(root / child, name, depth + 1)


def _trials_from_run_dirs(root: epath.Path, folder_name: str) -> list[TrialResult]:
    """Return the trials of a folder without sweep.json.

    Each stage 2 is a trial together with the stage 1 that its config names. Every other
    run is a trial of its own.
    """
    runs = {name: _read_stage_run(root, name, name, {}) for name in _run_dirs(root)}
    stage1_of: dict[str, str] = {}
    for name, run in runs.items():
        if run.stage is not None and run.stage.uses_stage1:
            stage1 = _find_stage1(root, name, run, runs)
            stage1_of |= {name: stage1} if stage1 else {}
    chains = [
        (stage1_of[name], name) if name in stage1_of else (name,)
        for name in runs
        if name not in stage1_of.values()
    ]
    return [
        _with_state(
            root,
            TrialResult(
                folder_name if chain == (".",) else _trial_name(chain, runs),
                {},
                tuple(runs[name] for name in chain),
            ),
        )
        for chain in chains
    ]


def _find_stage1(root, name: str, run: StageRun, runs) -> str | None:
    """Return the run in this folder that a stage 2 was trained on.

    It is recognized by its whole path or, if the folder was moved, by the end of the path;
    a run beside the stage 2 is preferred.
    """
    assert run.config is not None
    stage1_workdir = os.path.normpath(run.config["stage1"]["workdir"] or "")
    others = [other for other in runs if other != name]
    same_path = [
        other
        for other in others
        if os.path.abspath(root / other) == os.path.abspath(stage1_workdir)
    ]
    same_end = [other for other in others if f"/{stage1_workdir}".endswith(f"/{other}")]
    siblings = [
        other for other in same_end if os.path.dirname(other) == os.path.dirname(name)
    ]
    candidates = same_path or siblings or same_end
    return candidates[0] if candidates else None


def _trial_name(chain: tuple[str, ...], runs) -> str:
    """Return the folder of the trial's runs if it holds no other run, else the last run."""
    parent = os.path.dirname(chain[-1])
    in_parent = {name for name in runs if os.path.dirname(name) == parent}
    return parent if parent and in_parent == set(chain) else chain[-1]
