"""The directory of a run: its lock, its config.json and its count of starts."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ul.core import files, sealed_json
from ul.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NoProgress,
    WorkdirInUse,
)
from ul.core.files import lock, read_text, write_atomic
from ul.core.provenance import code_version, package_versions

log = logging.getLogger("ul")

# Keys that may change between two starts of one run: no saved weight depends on them.
CHANGEABLE_KEYS = (
    "steps",
    "log",
    "validation",
    "eval",
    "checkpoint",
    "mesh",
    "sampling",  # contains the adaptive grid, which `ul samplers --adapt` writes
    "loss.rate_floor_bpp",
    "data.threads",
    "data.source.path",  # provenance holds the digests of the data
    "data.source.eval_path",
    "data.source.data_dir",
    "data.source.captions",
    "stage1.workdir",  # provenance.stage1 holds the digest of the encoder
    "stage1.step",
    "init",  # only a run that begins reads it
    "latent_cache",  # provenance.latent_cache holds the digest of the cached latents
    "watchdog",
    # All implementations of attention have the same parameters.
    "prior.attention",
    "decoder.attention",
    "base.attention",
)

GRID_MEASUREMENT = "sampling.nats_per_logsnr"


@contextlib.contextmanager
def lock_directory(path: str) -> Iterator[epath.Path]:
    """Create the directory if needed and keep it locked for this process.

    Raises:
      WorkdirInUse: another live process holds the lock.
      StorageError: the directory cannot be created or written.
    """
    workdir = epath.Path(path)
    if "://" in path:  # Object stores have no locks and need no directories.
        yield workdir
        return
    descriptor = lock(Path(path, ".lock"))
    if descriptor is None:
        raise WorkdirInUse(
            f"{path} must be written by one process at a time, and another process "
            "holds its lock; stop that process or choose another directory."
        )
    try:
        yield workdir
    finally:
        os.close(descriptor)


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """Return a nested dict with dotted keys; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def flatten_without(config: dict, excluded: Collection[str]) -> dict[str, Any]:
    """Return the flattened config without the `excluded` keys and sections."""
    prefixes = tuple(f"{key}." for key in excluded)
    flat = flatten(config)
    return {k: v for k, v in flat.items() if not f"{k}.".startswith(prefixes)}


def value_differences(values: dict, reference: dict) -> list[str]:
    """Return a phrase `key: reference -> value` for each key whose values differ.

    A key that only one of the two dicts has counts as a difference.
    """

    def show(flat: dict, key: str) -> str:
        return repr(flat[key]) if key in flat else "not set"

    return [
        f"{key}: {show(reference, key)} -> {show(values, key)}"
        for key in sorted(values.keys() | reference.keys())
        if (key in values) != (key in reference)
        or values.get(key) != reference.get(key)
    ]


def config_changes(saved: dict, config: dict) -> list[str]:
    """Return a phrase for each key that differs from the saved config and may not."""
    return value_differences(
        flatten_without(config, CHANGEABLE_KEYS),
        flatten_without(saved, CHANGEABLE_KEYS),
    )


def process_invariants(config: dict, provenance: dict) -> dict[str, Any]:
    """Return what must be equal on all processes of a run, with dotted keys."""
    record = {
        "config": config,
        "code_version": code_version(),
        "data": provenance["data"],
        "files": _listing_digests(provenance),
        "versions": package_versions(),
    }
    return json.loads(json.dumps(flatten(record)))


def _listing_digests(provenance: dict) -> dict[str, str]:
    """Return the digest of the list of files of each split that has files."""
    report = provenance.get("dataset", {})
    return {split: about["digest"] for split, about in report.items()}


def resume_conflicts(saved: dict, config: dict, provenance: dict) -> list[str]:
    """Return a phrase for each difference that would make a resumed run another run."""
    conflicts = config_changes(saved["config"], config)
    before, now = saved["provenance"].get("data"), provenance.get("data")
    files_before = _listing_digests(saved["provenance"])
    files_now = _listing_digests(provenance)
    for split in files_before.keys() & files_now.keys():
        if files_before[split] != files_now[split]:
            conflicts.append(
                f"the files of the {split} split: digest of names and sizes "
                f"{files_before[split]} -> {files_now[split]}"
            )
    if before != now:
        conflicts.append(
            f"the training examples: {before} -> {now} (other files, another order, "
            "another pipeline, or cached latents instead of images)"
        )
    return conflicts


def write_or_check_config(
    workdir: epath.Path,
    config: dict,
    provenance: dict,
    *,
    allow_changes: bool,
    complete: Callable[[dict], dict] = lambda config: config,
) -> None:
    """Write config.json, after checking that an existing one belongs to the same run.

    `complete` adds the defaults of settings that are newer than a saved config.

    `provenance` is stored beside the config: mesh, number of processes, digest of the
    training examples, what the data hold, the stage-1 checkpoint that was restored. With
    `allow_changes`, differences are logged instead of refused.

    Raises:
      ConfigError: the directory belongs to another run.
    """
    path = workdir / "config.json"
    if files.exists(path):
        saved = load_run_record(workdir)
        if "export" in saved:
            raise ConfigError(
                f"{workdir} holds an exported model, which cannot be trained further; "
                "choose another --workdir."
            )
        saved["config"] = complete(saved["config"])
        conflicts = resume_conflicts(saved, config, provenance)
        if conflicts and not allow_changes:
            raise ConfigError(
                "A resumed run must keep its data, and its settings except those that "
                f"launch/README.md lists; in {workdir} these differ: {'; '.join(conflicts)}. "
                "Undo the change, choose another --workdir or pass --allow_changes."
            )
        for conflict in conflicts:
            log.warning("continuing with a changed setting: %s", conflict)
        config = _keep_adaptive_grid(config, saved["config"])
        _check_same_stage1(workdir, saved["provenance"], provenance)
        _warn_of_other_devices(saved["provenance"], provenance)
    record = {
        "config": config,
        "provenance": provenance,
        "code_version": code_version(),
        "versions": package_versions(),
    }
    write_atomic(path, json.dumps(sealed_json.seal(record), indent=2))


def _keep_adaptive_grid(config: dict, saved: dict) -> dict:
    """Keep the saved measurement of an adaptive grid if the config has none of its own."""
    own, before = (flatten(c).get(GRID_MEASUREMENT) for c in (config, saved))
    if own or not before or config["sampling"]["grid"] != "adaptive":
        return config
    return config | {"sampling": config["sampling"] | {"nats_per_logsnr": before}}


def update_sampling(path: str, changes: dict[str, Any]) -> None:
    """Change settings of the section `sampling` in the config.json of a run.

    Raises:
      ConfigError: there is no run.
      WorkdirInUse: the run is being trained.
      StorageError: the file cannot be written.
    """
    load_run_record(path)
    with lock_directory(path) as workdir:
        record = load_run_record(path)
        config = record["config"]
        config["sampling"] = config["sampling"] | changes
        write_atomic(
            workdir / "config.json", json.dumps(sealed_json.seal(record), indent=2)
        )


def _check_same_stage1(workdir: epath.Path, before: dict, now: dict) -> None:
    """Raises ConfigError if a run was trained on another encoder, or by another teacher."""
    run = before.get("stage1")
    for key, network in (("stage1", "encoder"), ("teacher", "decoder")):
        saved, current = before.get(key), now.get(key)
        if run and saved and current and saved[network] != current[network]:
            raise ConfigError(
                f"{workdir} must be resumed with the {network} that it was trained with, "
                f"the one of {run['workdir']} at step {run['step']} ({run['weights']}); "
                f"got another one. Restore that {network} or choose another --workdir."
            )


def _warn_of_other_devices(before: dict, now: dict) -> None:
    changes = [
        f"{key} {before[key]} -> {now[key]}"
        for key in ("mesh", "processes", "devices")
        if key in before and before[key] != now[key]
    ]
    if changes:
        log.warning(
            "devices changed (%s): weights and data order are identical, but sums are "
            "rounded differently, so the run is not bitwise reproducible",
            ", ".join(changes),
        )


@contextlib.contextmanager
def count_start(
    workdir: epath.Path, newest_step: int, max_attempts: int, *, is_new: bool
) -> Iterator[None]:
    """Count one more start, from checkpoint `newest_step`, while the run is being built.

    A start that is rejected in this block does not count, and a directory that it created
    (`is_new`) is removed.

    Raises:
      NoProgress: `max_attempts` (0: no limit) starts in a row resumed from this step.
    """
    path = workdir / "attempts.json"
    attempts = _read_attempts(path, newest_step)
    if max_attempts and attempts >= max_attempts:
        raise NoProgress(
            f"{attempts} starts in a row saved nothing beyond step {newest_step} of "
            f"{workdir}, and --max_attempts allows no more. Read their logs, fix the "
            "cause, then delete attempts.json."
        )
    write_atomic(path, json.dumps({"step": newest_step, "attempts": attempts + 1}))
    try:
        yield
    except (ConfigError, DataError, CheckpointError):
        write_atomic(path, json.dumps({"step": newest_step, "attempts": attempts}))
        if is_new:
            _remove_empty(workdir)
        raise


def _remove_empty(workdir: epath.Path) -> None:
    """Remove a directory that holds nothing but the files of a rejected start."""
    if set(files.names(workdir)) <= {"attempts.json", ".lock"}:
        for name in ("attempts.json", ".lock"):
            files.remove(workdir / name)
        files.write(workdir.rmdir, workdir)


def _read_attempts(path: epath.Path, newest_step: int) -> int:
    """Return the number of starts that were counted since checkpoint `newest_step`."""
    try:
        record = json.loads(read_text(path))
        return int(record["attempts"]) if record["step"] == newest_step else 0
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, OverflowError):
        log.warning("%s is ignored: it is no record of starts", path)
        return 0


def clear_start_attempts(workdir: epath.Path) -> None:
    """Reset the count of starts, once the run has reached its last step."""
    files.remove(workdir / "attempts.json")


def load_saved(workdir) -> dict[str, Any]:
    """Return config.json, or an empty dict before the first start.

    Raises:
      ConfigError: config.json cannot be read.
    """
    exists = files.exists(epath.Path(workdir) / "config.json")
    return load_run_record(workdir) if exists else {}


def load_run_record(workdir) -> dict[str, Any]:
    """Return config.json: config, provenance, code_version, versions.

    Raises:
      ConfigError: the file is missing or was changed.
      StorageError: it cannot be read.
    """
    path = epath.Path(workdir) / "config.json"
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise _no_run(workdir, "missing") from e
    except UnicodeDecodeError as e:
        raise ConfigError(
            f"{path} is damaged or was not written by this project ({e}). Restore the file, "
            "or pass another directory."
        ) from e
    try:
        record = sealed_json.unseal(text)
        return {"config": record["config"], "provenance": record["provenance"]} | record
    except (KeyError, json.JSONDecodeError) as e:
        raise _no_run(workdir, "unreadable") from e
    except ValueError as e:
        raise ConfigError(
            f"{path} must be as the run wrote it; {e}. Restore the file. If you changed it "
            'on purpose, remove its line "digest".'
        ) from e


def _no_run(workdir, problem: str) -> ConfigError:
    return ConfigError(
        f"No run found in {str(workdir)!r}: config.json is {problem}. Pass the directory "
        "that python -m ul train wrote."
    )
