"""What a sweep's directory says: sweep.json at the start, DONE.json at every end.

<out>/sweep.json         the trials and their configs
<out>/<stage>/DONE.json  once trained, verified and evaluated: digest, step
<out>/<trial>/DONE.json  written last, once all of its stages are
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ul.checkpoints.workdir import unlike
from ul.core.errors import ConfigError, StorageError
from ul.core.files import lock, write_atomic
from ul.core.provenance import code_version
from ul.sweeps.expand import Stage, Trial, lasting

SAID = 3  # differences in a message


def plain(sweep: str, trials: list[Trial]) -> dict[str, Any]:
    """The content of sweep.json."""
    configs = {stage.config: stage.base for t in trials for stage in t.stages}
    listed = [
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
    ]
    made = {"sweep": sweep, "code": code_version(), "trials": listed}
    return made | {"configs": configs}


def differences(saved: dict, wanted: dict, *, some: bool) -> list[str]:
    """What is not as it was begun, one phrase each; more trials are no difference.

    `some`: `wanted` are some of the sweep's trials, others may be saved.
    """
    now = {trial["name"]: trial for trial in wanted["trials"]}
    found = []
    for trial in saved["trials"]:
        name = trial["name"]
        if name not in now:
            found += [] if some else [f"trial {name} is not in it any more"]
            continue
        before, after = trial["stages"], now[name]["stages"]
        if len(before) != len(after):
            found.append(f"trial {name}: {len(before)} -> {len(after)} stages")
        for i, (a, b) in enumerate(zip(before, after, strict=False), 1):
            moved = unlike(_flat(b), _flat(a))
            found += [f"trial {name}, stage {i}: {phrase}" for phrase in moved]
    for name in saved["configs"].keys() & wanted["configs"].keys():
        was, now_is = (lasting(d["configs"][name]) for d in (saved, wanted))
        found += [f"{name}: {phrase}" for phrase in unlike(now_is, was)]
    return found


def _flat(stage: dict) -> dict:
    free = {key: value for key, value in stage.items() if key != "overrides"}
    return free | lasting(stage["overrides"])


@contextlib.contextmanager
def _alone(out: epath.Path) -> Iterator[None]:
    """Waits until no other process is here; object stores have no locks."""
    if "://" in str(out):
        yield
        return
    handle = lock(Path(out, ".sweep.lock"), wait=True)
    assert handle is not None  # it waited
    try:
        yield
    finally:
        os.close(handle)


def begin(
    where: epath.Path | str, sweep: str, trials: list[Trial], *, some: bool = False
) -> None:
    """Write sweep.json, or check the one there; it may grow by trials.

    `some`: `trials` are some of the sweep's; those that are saved besides stay.

    Raises:
      ConfigError: it was begun with other settings; with the first of them.
      StorageError: the directory cannot be written.
    """
    out, wanted = epath.Path(where), plain(sweep, trials)
    path = out / "sweep.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            if path.exists():
                saved = read(out)
                found = differences(saved, wanted, some=some)
                if found:
                    more = len(found) - SAID
                    rest = f"; and {more} more" if more > 0 else ""
                    raise ConfigError(
                        f"{out} was begun with another sweep ({'; '.join(found[:SAID])}"
                        f"{rest}); give another --out"
                    )
                old = {trial["name"] for trial in saved["trials"]}
                new = [t for t in wanted["trials"] if t["name"] not in old]
                if not new:
                    return
                wanted = saved | {
                    "trials": saved["trials"] + new,
                    "configs": saved["configs"] | wanted["configs"],
                }
            write_atomic(path, json.dumps(wanted, indent=2) + "\n")
    except OSError as e:
        raise StorageError(f"{out} cannot be written: {e}") from e


def read(out: epath.Path) -> dict[str, Any]:
    """sweep.json of a directory.

    Raises:
      ConfigError: there is none, or it cannot be read.
    """
    try:
        record = json.loads((out / "sweep.json").read_text())
        return {"trials": record["trials"], "configs": record["configs"]} | record
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"{out} is no sweep's directory: sweep.json is missing or unreadable"
        ) from e


def _done(path: epath.Path) -> dict | None:
    try:
        return json.loads((path / "DONE.json").read_text())
    except (OSError, ValueError):
        return None


def stage_done(out: epath.Path, stage: Stage) -> bool:
    """This stage, with this config, was trained to its end and evaluated."""
    record = _done(out / stage.workdir)
    return record is not None and record.get("digest") == stage.digest


def finished(out: epath.Path | str, trial: Trial) -> bool:
    """All stages of the trial were, and it says so."""
    record = _done(epath.Path(out) / trial.name)
    digests = [stage.digest for stage in trial.stages]
    return record is not None and record.get("digests") == digests


def left(out: str, trials: list[Trial]) -> list[Trial]:
    """What a cluster still has to do; what lies in a bucket is seen there alone.

    Raises:
      ConfigError: trials of one stage 1 where nothing can be locked.
    """
    if "://" not in out:
        return [trial for trial in trials if not finished(out, trial)]
    owners: dict[str, str] = {}
    for trial in trials:
        first = owners.setdefault(trial.stages[0].workdir, trial.name)
        if first != trial.name:
            raise ConfigError(
                f"{first} and {trial.name} share a stage 1, and {out} has no locks; "
                "send one of them, with --trial, once the other is done"
            )
    return trials


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def close_stage(out: epath.Path, stage: Stage, step: int) -> None:
    """Say that a stage is done.

    Raises:
      StorageError: the disk refuses.
    """
    record = {"config": stage.config, "digest": stage.digest, "step": step}
    more = {"code": code_version(), "written": _now()}
    text = json.dumps(record | more, indent=2)
    write_atomic(out / stage.workdir / "DONE.json", text + "\n")


def close_trial(out: epath.Path, trial: Trial) -> None:
    """Say that a trial is done.

    Raises:
      StorageError: the disk refuses.
    """
    path = out / trial.name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{path} cannot be made: {e}") from e
    record = {
        "trial": trial.name,
        "digests": [stage.digest for stage in trial.stages],
        "stages": [
            {"workdir": stage.workdir, "step": stage.steps} for stage in trial.stages
        ],
        "written": _now(),
    }
    write_atomic(path / "DONE.json", json.dumps(record, indent=2) + "\n")
