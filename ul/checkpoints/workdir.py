"""A run's directory: who may write in it, and which config it belongs to."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ul.core.errors import ConfigError, NoProgress, WorkdirInUse
from ul.core.files import lock, write_atomic
from ul.core.provenance import code_version, versions

log = logging.getLogger("ul")

# What may change between runs of one workdir: it moves no weight that is kept.
FREE_KEYS = (
    "steps",
    "log",
    "validation",
    "eval",
    "checkpoint",
    "mesh",
    "sampling",
    "data.threads",
    "stage1.workdir",  # provenance.stage1 says by digest which encoder it was
    "stage1.step",
    "latent_cache",  # provenance.latent_cache says by digest which they were
    "watchdog",
)
# What runs did from before there was the key.
BEFORE_KEYS = {
    "data.augment": "stream",
    "data.text": [0, 0],
    "context_frames": 0,
    "latent_dtype": "float32",
}


@contextlib.contextmanager
def locked(path: str) -> Iterator[epath.Path]:
    """The directory, made if need be, held by this process alone until the end.

    Raises:
      WorkdirInUse: another live process holds it.
      StorageError: it cannot be made or written.
    """
    workdir = epath.Path(path)
    if "://" in path:  # object stores have no locks; the directory needs no making
        yield workdir
        return
    handle = lock(Path(path, ".lock"))
    if handle is None:
        raise WorkdirInUse(
            f"another process writes in {path}; stop it or choose another directory"
        )
    try:
        yield workdir
    finally:
        os.close(handle)


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dict to dotted keys; tuples and lists alike."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def changed(saved: dict, wanted: dict) -> list[str]:
    """Settings that may not change and did, one phrase each."""
    a, b = BEFORE_KEYS | flatten(saved), BEFORE_KEYS | flatten(wanted)
    return [
        f"{key}: {a.get(key)!r} -> {b.get(key)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)
    ]


def identity(config: dict, data: str) -> dict[str, Any]:
    """What all processes of a run must have in common, as dotted keys."""
    record = {"code": code_version(), "data": data, "versions": versions()}
    return json.loads(json.dumps(flatten({"config": config} | record)))


def unlike(here: dict, there: dict) -> list[str]:
    """Keys whose values differ, one phrase each."""
    return [
        f"{key}: {there.get(key)!r} -> {here.get(key)!r}"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]


def check_same(saved: dict, config: dict, provenance: dict) -> list[str]:
    """What a resumed run would not survive, one phrase each."""
    found = changed(saved["config"], config)
    before, now = saved["provenance"], provenance
    if "data" in before and before["data"] != now["data"]:
        found += [
            f"the training examples: {before['data']} -> {now['data']} (other files, "
            "another order, another pipeline, or cached latents in place of images)"
        ]
    return found


def claim(workdir: epath.Path, config: dict, provenance: dict, *, allow: bool) -> None:
    """Write config.json, or check that the one there is of the same run.

    `provenance`: what else to remember: mesh, processes, a digest of the data, the stage 1
    checkpoint that was restored. `allow`: differences are said and not refused.

    Raises:
      ConfigError: the workdir belongs to another config.
    """
    path = workdir / "config.json"
    if path.exists():
        saved = load_config(workdir)
        if "export" in saved:
            raise ConfigError(
                f"{workdir} is an export, weights without what training goes on from; "
                "choose another --workdir"
            )
        differences = check_same(saved, config, provenance)
        if differences and not allow:
            raise ConfigError(
                f"{workdir} was trained with another config ({'; '.join(differences)}); "
                "choose another --workdir, undo the change or give --allow_changes"
            )
        for difference in differences:
            log.warning("allowed change, %s", difference)
        kept, wanted = saved["provenance"].get("stage1"), provenance.get("stage1")
        if kept and wanted and kept["encoder"] != wanted["encoder"]:
            raise ConfigError(
                f"{workdir} was trained on the encoder of {kept['workdir']} step "
                f"{kept['step']} ({kept['weights']}), not on this one; choose another --workdir"
            )
        _say_what_moved(saved["provenance"], provenance)
    record = {
        "config": config,
        "provenance": provenance,
        "code": code_version(),
        "versions": versions(),
    }
    write_atomic(path, json.dumps(record, indent=2))


def _say_what_moved(before: dict, now: dict) -> None:
    moved = [
        f"{key} {before[key]} -> {now[key]}"
        for key in ("mesh", "processes", "devices")
        if key in before and before[key] != now[key]
    ]
    if moved:
        log.warning(
            "%s: the weights that are restored and the order of the data are exact, sums "
            "are rounded in another order from here (not bitwise)",
            ", ".join(moved),
        )


def count_attempt(workdir: epath.Path, newest: int, limit: int) -> None:
    """One start more; `newest` is the step that it goes on from.

    Raises:
      NoProgress: `limit` (0: none) starts in a row went on from the same step.
    """
    path = workdir / "attempts.json"
    try:
        seen = json.loads(path.read_text())
        attempts = seen["attempts"] if seen["step"] == newest else 0
    except (OSError, ValueError, KeyError):
        attempts = 0
    if limit and attempts >= limit:
        raise NoProgress(
            f"{attempts} starts in a row saved nothing beyond step {newest} of {workdir}; "
            "read their logs, mend the cause, then delete attempts.json"
        )
    record = {"step": newest, "attempts": attempts + 1}
    write_atomic(path, json.dumps(record))


def done(workdir: epath.Path) -> None:
    """The run is at its end: starts are counted afresh."""
    (workdir / "attempts.json").unlink(missing_ok=True)


def remembered(workdir) -> dict[str, Any]:
    """The provenance of the run in this workdir; none before its first start."""
    there = (epath.Path(workdir) / "config.json").exists()
    return load_config(workdir)["provenance"] if there else {}


def load_config(workdir) -> dict[str, Any]:
    """The record in config.json: config, provenance, code, versions.

    Raises:
      ConfigError: there is none, or it cannot be read.
    """
    path = epath.Path(workdir) / "config.json"
    try:
        record = json.loads(path.read_text())
        return {"config": record["config"], "provenance": record["provenance"]} | record
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"{workdir} is no run's workdir: config.json is missing or unreadable"
        ) from e
