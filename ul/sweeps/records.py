"""The records in the directory of a sweep: sweep.json, and DONE.json for finished work.

<out>/sweep.json         the trials and their configs
<out>/<stage>/DONE.json  digest and step, once trained, verified and evaluated
<out>/<trial>/DONE.json  written last, once all stages of the trial are finished
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ul.checkpoints.workdir import value_differences
from ul.core import files, sealed_json
from ul.core.errors import ConfigError
from ul.core.files import lock, write_atomic
from ul.core.provenance import code_version
from ul.sweeps.expand import Trial, TrialStage, result_settings

MAX_LISTED_DIFFERENCES = 3


def build_record(sweep: str, trials: list[Trial]) -> dict[str, Any]:
    """Return the content of sweep.json; `sweep` is the name of the sweep file."""
    return {
        "sweep": sweep,
        "code_version": code_version(),
        "trials": [
            {
                "name": trial.name,
                "overrides": trial.overrides,
                "stages": [
                    {
                        "config": stage.config,
                        "workdir": stage.workdir,
                        "overrides": stage.overrides,
                    }
                    for stage in trial.stages
                ],
            }
            for trial in trials
        ],
        "configs": {
            stage.config: stage.base_config
            for trial in trials
            for stage in trial.stages
        },
    }


def sweep_differences(saved: dict, record: dict, *, is_subset: bool) -> list[str]:
    """Return a phrase for each way in which `record` changes a saved sweep.json.

    An additional trial is not a difference. With `is_subset`, `record` has only some of
    the sweep's trials, so a trial that it lacks is not a difference either.
    """
    trials = {trial["name"]: trial for trial in record["trials"]}
    differences = []
    for trial in saved["trials"]:
        name = trial["name"]
        if name not in trials:
            differences += [] if is_subset else [f"trial {name} is missing"]
            continue
        before, after = trial["stages"], trials[name]["stages"]
        if len(before) != len(after):
            differences.append(f"trial {name}: {len(before)} -> {len(after)} stages")
        for i, (old, new) in enumerate(zip(before, after, strict=False), 1):
            changes = value_differences(_flatten_stage(new), _flatten_stage(old))
            differences += [f"trial {name}, stage {i}: {change}" for change in changes]
    for name in saved["configs"].keys() & record["configs"].keys():
        old, new = (result_settings(d["configs"][name]) for d in (saved, record))
        differences += [f"{name}: {change}" for change in value_differences(new, old)]
    return differences


def _flatten_stage(stage: dict) -> dict:
    """Return a stage of sweep.json without the overrides on which no result depends."""
    others = {key: value for key, value in stage.items() if key != "overrides"}
    return others | result_settings(stage["overrides"])


@contextlib.contextmanager
def _locked(out: epath.Path) -> Iterator[None]:
    """Wait for the lock of a sweep's directory and hold it; object stores have none."""
    if "://" in str(out):
        yield
        return
    descriptor = lock(Path(out, ".sweep.lock"), wait=True)
    assert descriptor is not None, "a lock that is waited for is always given"
    try:
        yield
    finally:
        os.close(descriptor)


def write_or_check_sweep(
    directory: epath.Path | str,
    sweep: str,
    trials: list[Trial],
    *,
    is_subset: bool = False,
) -> None:
    """Write sweep.json, or check that an existing one describes the same sweep.

    New trials are added to an existing file. With `is_subset`, `trials` are only some of
    the sweep's trials, and the other saved ones stay.

    Raises:
      ConfigError: the directory holds a sweep with other settings, which are listed.
      StorageError: the directory cannot be written.
    """
    out, record = epath.Path(directory), build_record(sweep, trials)
    files.make_directory(out)
    with _locked(out):
        path = out / "sweep.json"
        if files.exists(path):
            saved = read_sweep(out)
            _check_unchanged(out, saved, record, is_subset)
            names = {trial["name"] for trial in saved["trials"]}
            new = [t for t in record["trials"] if t["name"] not in names]
            if not new:
                return
            record = saved | {
                "trials": saved["trials"] + new,
                "configs": saved["configs"] | record["configs"],
            }
        record = sealed_json.seal(record)
        write_atomic(path, json.dumps(record, indent=2) + "\n")


def _check_unchanged(
    out: epath.Path, saved: dict, record: dict, is_subset: bool
) -> None:
    """Raises ConfigError with the first differences, if there are any."""
    differences = sweep_differences(saved, record, is_subset=is_subset)
    if differences:
        listed = "; ".join(differences[:MAX_LISTED_DIFFERENCES])
        others = len(differences) - MAX_LISTED_DIFFERENCES
        rest = f"; and {others} more" if others > 0 else ""
        raise ConfigError(
            f"{out} must be new or hold the same sweep; these differ: {listed}{rest}. Undo "
            "the change or choose another --out."
        )


def read_sweep(out: epath.Path) -> dict[str, Any]:
    """Return the sweep.json of a directory.

    Raises:
      ConfigError: the file is missing or cannot be read.
    """
    try:
        record = sealed_json.unseal(files.read_text(out / "sweep.json"))
        return {"trials": record["trials"], "configs": record["configs"]} | record
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
        TypeError,
    ) as e:
        missing = isinstance(e, FileNotFoundError | NotADirectoryError)
        raise ConfigError(
            f"No sweep found in {str(out)!r}: sweep.json is "
            f"{'missing' if missing else f'unreadable ({e})'}. Pass the directory that "
            "python -m ul sweep wrote."
        ) from e


def _read_done(directory: epath.Path) -> dict | None:
    try:
        return json.loads(files.read_text(directory / "DONE.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def is_stage_finished(out: epath.Path, stage: TrialStage) -> bool:
    """Whether this stage, with this config, was trained to its end and evaluated."""
    record = _read_done(out / stage.workdir)
    return record is not None and record.get("digest") == stage.digest


def is_trial_finished(out: epath.Path | str, trial: Trial) -> bool:
    """Whether all stages of the trial, with these configs, are finished."""
    record = _read_done(epath.Path(out) / trial.name)
    digests = [stage.digest for stage in trial.stages]
    return record is not None and record.get("digests") == digests


def unfinished_trials(out: str, trials: list[Trial]) -> list[Trial]:
    """Return the trials that a cluster still has to run.

    For an object store these are all trials, because its records are read by the jobs.

    Raises:
      ConfigError: trials in an object store, which has no locks, share a stage 1.
    """
    if "://" not in out:
        return [trial for trial in trials if not is_trial_finished(out, trial)]
    owners: dict[str, str] = {}
    for trial in trials:
        owner = owners.setdefault(trial.stages[0].workdir, trial.name)
        if owner != trial.name:
            raise ConfigError(
                f"Trials in {out} must not share a stage 1, because object stores have no "
                f"locks; {owner} and {trial.name} share a stage 1. Submit one of them with "
                "--trial, and the other one once it is finished."
            )
    return trials


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def mark_stage_finished(out: epath.Path, stage: TrialStage, step: int) -> None:
    """Write the DONE.json of a stage.

    Raises:
      StorageError: the file cannot be written.
    """
    record = {
        "config": stage.config,
        "digest": stage.digest,
        "step": step,
        "code_version": code_version(),
        "written": _now(),
    }
    text = json.dumps(record, indent=2)
    write_atomic(out / stage.workdir / "DONE.json", text + "\n")


def mark_trial_finished(out: epath.Path, trial: Trial) -> None:
    """Write the DONE.json of a trial.

    Raises:
      StorageError: the file or its directory cannot be written.
    """
    path = out / trial.name
    files.make_directory(path)
    record = {
        "trial": trial.name,
        "digests": [stage.digest for stage in trial.stages],
        "stages": [
            {"workdir": stage.workdir, "step": stage.steps} for stage in trial.stages
        ],
        "written": _now(),
    }
    write_atomic(path / "DONE.json", json.dumps(record, indent=2) + "\n")
