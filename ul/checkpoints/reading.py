"""Read checkpoints, and tell a damaged one from storage that fails.

    checkpoints/<step>/     the state, and meta: digest, shape and dtype of every leaf
    verified/<step>.json    written once the commit marker exists; readers trust only these

A step counts as damaged only if that is proven: a file is missing, or all of its files can
be read and their content is wrong. Everything else is a failure of the storage, which is
tried again and then ends the command; nothing is moved.
"""

import errno
import functools
import json
import logging
import re
from typing import Any

import jax
from etils import epath, epy

from ul.checkpoints import digests
from ul.core import files, sealed_json, trees
from ul.core.errors import (
    CheckpointError,
    StorageError,
    UnreadableStep,
    UnusablePath,
)

with epy.lazy_imports():  # Exported models are loaded without Orbax.
    import orbax.checkpoint as ocp

log = logging.getLogger("ul")

# Orbax writes this file into a step that is complete (AtomicityMode.COMMIT_FILE).
COMMIT_MARKER = "commit_success.txt"
# Names the step that is being saved.
UNFINISHED = "unfinished.json"
# The version of `meta`. Version 1 had other digests.
SCHEMA = 2
MAX_MESSAGE_LENGTH = 300
# TensorStore reports these in the text of a ValueError when the storage fails.
_STORAGE_STATUS = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|RESOURCE_EXHAUSTED|"
    r"PERMISSION_DENIED|UNAUTHENTICATED|INTERNAL|UNKNOWN)\b"
)


def short_message(error: Exception) -> str:
    """Return the readable part of a storage library's error message."""
    line = str(error).split("\n")[0]
    for detail in (" [tensorstore_spec", " See full TensorStore details"):
        line = line.split(detail)[0]
    is_short = len(line) <= MAX_MESSAGE_LENGTH
    return line if is_short else line[:MAX_MESSAGE_LENGTH] + "..."


def is_committed(workdir: epath.Path, step: int) -> bool:
    """Return whether a step has the marker that Orbax writes last."""
    marker = workdir / "checkpoints" / str(step) / COMMIT_MARKER
    return files.exists(marker)


def numbered(directory: epath.Path, suffix: str = "") -> list[int]:
    """Return the numbers of the entries <number><suffix> of a directory, ascending.

    Other entries are ignored: people copy and rename files.

    Raises:
      StorageError: the directory cannot be listed.
    """
    names = files.names(directory)
    pattern = re.compile(r"(0|[1-9]\d*)" + re.escape(suffix))
    matches = [(name, pattern.fullmatch(name)) for name in names]
    unknown = [n for n, m in matches if m is None and not n.startswith(".")]
    _warn_of_unknown(str(directory), tuple(sorted(unknown)[:3]))
    return sorted(int(match[1]) for _, match in matches if match)


@functools.cache
def _warn_of_unknown(directory: str, names: tuple[str, ...]) -> None:
    """Name ignored files once; a run lists its directories after every save."""
    if names:
        log.warning("%s: ignored %s", directory, ", ".join(names))


def recorded_steps(workdir: epath.Path) -> list[int]:
    """Return the steps that were verified once, ascending; some may be deleted."""
    return numbered(workdir / "verified", ".json")


def committed_steps(workdir: epath.Path) -> list[int]:
    """Return the steps that have their commit marker, ascending."""
    steps = numbered(workdir / "checkpoints")
    return [step for step in steps if is_committed(workdir, step)]


def verified_steps(workdir) -> list[int]:
    """Return the committed and verified steps of a run, ascending; write nothing."""
    workdir = epath.Path(workdir)
    return [step for step in recorded_steps(workdir) if is_committed(workdir, step)]


def unfinished_step(workdir: epath.Path) -> int | None:
    """Return the step that a start of this run began to save and did not finish."""
    try:
        return int(json.loads(files.read_text(workdir / UNFINISHED))["step"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        log.warning("%s is ignored: it is no record of a save", workdir / UNFINISHED)
        return None


def check_nothing_is_missing(workdir: epath.Path) -> None:
    """Check, before a run writes anything, that its newest checkpoint can be found.

    Raises:
      CheckpointError: it is missing, or a step lacks its commit marker. Training from an
        older state, or from scratch, would overwrite it.
    """
    recorded, committed = recorded_steps(workdir), committed_steps(workdir)
    if recorded and recorded[-1] not in committed:
        raise CheckpointError(
            f"{workdir}/verified records checkpoint {recorded[-1]}, but it is missing from "
            f"{workdir}/checkpoints or lacks its {COMMIT_MARKER}. Copy all files of the run "
            "here, or move verified/ and checkpoints/ away to start from scratch. Nothing "
            "was changed."
        )
    newest = max(committed, default=-1)
    unknown = [
        step
        for step in numbered(workdir / "checkpoints")
        if step > newest and step != unfinished_step(workdir)
    ]
    if unknown:
        raise CheckpointError(
            f"{workdir}/checkpoints/{unknown[-1]} lacks its {COMMIT_MARKER}, so it is being "
            "copied or is incomplete. Copy the missing files, or move that directory away. "
            "Nothing was changed."
        )


def read_item(step_directory: epath.Path, item: str, abstract: Any) -> Any:
    """Read the subtree `abstract` of an item of a step.

    `abstract` holds the shapes, dtypes and shardings of the leaves.
    """
    restore_args = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return ocp.PyTreeCheckpointHandler().restore(
        step_directory / item, args=restore_args
    )


def load_meta(workdir: epath.Path, step: int) -> dict[str, Any]:
    """Read the meta of a step: schema, step, digests and leaves.

    Raises:
      UnreadableStep: it is missing or damaged.
      CheckpointError: another version of this project wrote it.
      StorageError: the storage fails.
    """
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    try:
        text = files.read_text(path)
        meta = sealed_json.unseal(text)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise _unreadable(step, e) from e
    except UnicodeEncodeError as e:
        raise UnusablePath(_encoding_message(path, e)) from e
    except ValueError as e:
        raise _unreadable(step, e) from e
    if "digest" not in meta and meta.get("schema") == 1:
        raise CheckpointError(
            f"Checkpoint {step} in {workdir} was written by an older version of this "
            "project, whose digests this version cannot check. Use that version."
        )
    if meta.get("schema") != SCHEMA or "digest" not in meta:
        raise _unreadable(step, ValueError("its meta does not have its digest"))
    return meta


def load_state(workdir: epath.Path, step: int, abstract: Any) -> Any:
    """Read the state of a step, or the subtree `abstract` of it.

    Orbax's handlers are called instead of its manager, because the manager would wait for
    processes that have already failed.

    Raises:
      UnreadableStep: it is damaged.
      StorageError: the storage fails.
    """
    directory = workdir / "checkpoints" / str(step)

    def read():
        try:
            return read_item(directory, "state", abstract)
        except ValueError as e:
            if _STORAGE_STATUS.search(str(e)):
                raise OSError(errno.EIO, short_message(e)) from e
            raise

    try:
        state = files.read(read, directory)
        # Orbax leaves out what its own, damaged metadata does not list.
        leaves = trees.leaves_by_path(state)
        absent = [p for p, leaf in leaves.items() if not isinstance(leaf, jax.Array)]
        if absent:
            raise ValueError(
                f"{absent[0]} and {len(absent) - 1} other arrays are missing"
            )
        return state
    except (MemoryError, StorageError, jax.errors.JaxRuntimeError):
        raise
    except UnicodeEncodeError as e:
        raise UnusablePath(_encoding_message(directory, e)) from e
    except Exception as e:  # Orbax and TensorStore raise many kinds of errors.
        _check_readable(directory)
        raise _unreadable(step, e) from e


def _check_readable(path: epath.Path) -> None:
    """Read all files of a step; their content is wrong only if the storage gives it.

    Raises:
      StorageError: the storage fails.
    """
    try:
        children = files.read(lambda: list(path.iterdir()), path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        files.read(path.read_bytes, path)
        return
    for child in children:
        _check_readable(child)


def _encoding_message(path: epath.Path, error: UnicodeEncodeError) -> str:
    return (
        f"{ascii(str(path))} cannot be read: the locale of this process cannot express it "
        f"({error.reason}). Set LC_ALL=C.UTF-8 or rename the directory."
    )


def _unreadable(step: int, error: Exception) -> UnreadableStep:
    return UnreadableStep(f"checkpoint {step} is damaged: {short_message(error)}")


def choose_verified_step(workdir, step: int | None) -> int:
    """Return `step`, or the latest one for None, after checking that it is verified.

    Raises:
      CheckpointError: the step is not verified; the message lists those that are.
    """
    steps = verified_steps(workdir)
    if not steps:
        raise CheckpointError(
            f"{workdir} has no verified checkpoint. Train there first; if training was "
            "killed, run the same command again to verify the checkpoints it left."
        )
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{workdir} has no verified step {step}, only {steps}; choose one of them."
        )
    if step is None and (newest := recorded_steps(epath.Path(workdir))[-1]) > steps[-1]:
        log.warning(
            "%s records step %d, which is missing from checkpoints/; step %d is used",
            workdir,
            newest,
            steps[-1],
        )
    return steps[-1] if step is None else step


def restore_subtree(workdir, step: int, abstract) -> Any:
    """Restore a subtree of a verified state and check its digests.

    `abstract`: nested dicts down to leaves that hold shapes, dtypes and shardings.

    Raises:
      CheckpointError: the step is damaged or deleted, or its shapes differ.
      StorageError: the storage fails.
    """
    workdir = epath.Path(workdir).resolve()
    source = f"{workdir}, step {step}"
    try:
        meta = load_meta(workdir, step)
        _check_leaves(source, meta["leaves"], digests.shapes_and_dtypes(abstract))
        subtree = load_state(workdir, step, abstract)
    except UnreadableStep as e:
        if not is_committed(workdir, step):
            raise CheckpointError(
                f"{source} is not available any more. A running trainer may have deleted "
                "it. Choose another step or raise checkpoint.keep."
            ) from e
        raise CheckpointError(f"{workdir}: {e}. Choose another step.") from e
    actual, _ = digests.digest_leaves(subtree)
    damaged = [path for path, d in actual.items() if meta["digests"][path] != d]
    if damaged:
        raise CheckpointError(
            f"{source} is damaged: {len(damaged)} arrays do not have their digests, "
            f"{damaged[0]} among them. Choose another step."
        )
    return subtree


def _check_leaves(
    source: str, saved: dict[str, list], requested: dict[str, list]
) -> None:
    missing = [path for path in requested if path not in saved]
    if missing:
        raise CheckpointError(
            f"{source} has no {missing[0]}; {len(missing)} of the requested arrays are "
            "missing. Request weights that the run has."
        )
    own = {path: saved[path] for path in requested}
    if differences := digests.leaf_differences(own, requested):
        raise CheckpointError(
            f"{source} must hold the arrays of this config; {len(differences)} differ: "
            f"{'; '.join(differences[:3])}. Use the config it was trained with."
        )
