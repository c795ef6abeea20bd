"""Checkpoints: saved by Orbax, committed by a marker file, then verified by digests.

    checkpoints/<step>/     the state, and meta: digest, shape and dtype of every leaf
    verified/<step>.json    written once the commit marker exists; readers trust only these

A committed step can be checked without its verified/ file: its leaves must have the
digests in its meta. A kill between the commit and the verification therefore loses
nothing, because the trainer verifies the step when it resumes.
"""

import functools
import json
import logging
import time
import zlib
from typing import Any

import jax
from etils import epath, epy

from ul.core import processes, trees
from ul.core.errors import (
    CheckpointError,
    NonFiniteError,
    StorageError,
    UnreadableStep,
    UserError,
)
from ul.core.files import write_atomic, write_error

with epy.lazy_imports():  # Exported models are loaded without Orbax.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

log = logging.getLogger("ul")

# Orbax writes this file into a step that is complete (AtomicityMode.COMMIT_FILE).
COMMIT_MARKER = "commit_success.txt"
# Seconds that processes wait for each other around a restore.
AGREEMENT_SECONDS = 900.0
MAX_MESSAGE_LENGTH = 300


def short_message(error: Exception) -> str:
    """Return the readable part of a storage library's error message."""
    line = str(error).split(" [tensorstore_spec")[0].split("\n")[0]
    is_short = len(line) <= MAX_MESSAGE_LENGTH
    return line if is_short else line[:MAX_MESSAGE_LENGTH] + "..."


def _save_error(message: str, error: Exception) -> UserError:
    """Return the error to raise for a failed save.

    It is PeerLost where a collective of the save failed, and StorageError otherwise.
    """
    if processes.is_peer_failure(error):
        return processes.peer_lost_error(error)
    return StorageError(f"{message}: {short_message(error)}")


def shape_and_dtype(leaf) -> list:
    """Return [shape, dtype] of an array as JSON stores it."""
    return [list(leaf.shape), str(leaf.dtype)]


@jax.jit
def _digest_leaves(tree):
    return jax.tree.map(trees.digest, tree), jax.tree.map(trees.all_finite, tree)


def digest_leaves(tree) -> tuple[dict[str, int], list[str]]:
    """Return the digest of every leaf by path, and the paths of non-finite leaves."""
    digests, finite = jax.device_get(_digest_leaves(tree))
    return (
        {path: int(digest) for path, digest in trees.leaves_by_path(digests).items()},
        [
            path
            for path, is_finite in trees.leaves_by_path(finite).items()
            if not is_finite
        ],
    )


def fingerprint(tree) -> str:
    """Return eight hex digits that change when any bit of any leaf does."""
    digests, _ = digest_leaves(tree)
    return f"{zlib.crc32(json.dumps(digests, sort_keys=True).encode()):08x}"


def leaf_differences(saved: dict[str, list], expected: dict[str, list]) -> list[str]:
    """Return a phrase for each path whose shape or dtype differs or that one side lacks."""
    return [
        f"{path}: saved {saved.get(path, 'nothing')}, "
        f"expected {expected.get(path, 'nothing')}"
        for path in sorted(saved.keys() | expected.keys())
        if saved.get(path) != expected.get(path)
    ]


def read_item(step_directory: epath.Path, item: str, abstract: Any = None) -> Any:
    """Read one item of a step.

    Without `abstract` the item is JSON. With it, the item is a state of which the
    subtree `abstract` is read, with the shapes, dtypes and shardings of its leaves.
    """
    if abstract is None:
        return ocp.JsonCheckpointHandler().restore(step_directory / item)
    restore_args = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return ocp.PyTreeCheckpointHandler().restore(
        step_directory / item, args=restore_args
    )


class Checkpoints:
    """The trainer's access to its checkpoints: save, verify, restore the latest.

    The processes of one run share one instance per workdir; no other run may have one.
    """

    def __init__(
        self, workdir, *, keep: int, keep_every: int = 0, keep_minutes: float = 0.0
    ):
        """Open `workdir`/checkpoints.

        The last `keep` steps are kept. Multiples of `keep_every` and one step each
        `keep_minutes` are kept for good (0: none).
        """
        self._verified = epath.Path(workdir) / "verified"
        self._damaged = epath.Path(workdir) / "damaged"
        preserve: list = [policies.LatestN(keep)]
        if keep_every:
            preserve.append(policies.EveryNSteps(keep_every))
        if keep_minutes:
            preserve.append(policies.EveryNSeconds(round(60 * keep_minutes)))
        self._checkpoints = epath.Path(workdir).resolve() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._checkpoints,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(preserve),
                # The default would list half-written steps.
                atomicity_options=ocp.options.AtomicityOptions(
                    mode=ocp.options.AtomicityMode.COMMIT_FILE
                ),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )
        self._pending: tuple[int, dict] | None = None

    def save(self, step: int, state) -> None:
        """Start saving `state`; return as soon as it is copied off the devices.

        Raises:
          NonFiniteError: some leaf is not finite; nothing is saved.
          StorageError: this save or the previous one failed.
          PeerLost: another process ended during the save.
        """
        self.wait()
        digests, nonfinite = digest_leaves(state)
        if nonfinite:
            raise NonFiniteError(
                f"Every array of a checkpoint must be finite; at step {step} "
                f"{len(nonfinite)} are not finite, the first is {nonfinite[0]}. Lower "
                "optimizer.lr or check the data, then resume from the last checkpoint."
            )
        leaves = {
            path: shape_and_dtype(leaf)
            for path, leaf in trees.leaves_by_path(state).items()
        }
        meta = {"schema": 1, "step": step, "digests": digests, "leaves": leaves}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        )
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError) as e:
            raise _save_error(f"Checkpoint {step} cannot be written", e) from e
        self._pending = (step, meta)

    def poll(self) -> None:
        """Mark the save in progress as verified if it has finished.

        This is cheap enough for every step, and no process waits for another: they see
        the end of a save at different steps.
        """
        if self._pending and not self._manager.is_saving_in_progress():
            step, meta = self._pending
            if processes.is_first() and self._is_committed(step):
                self._mark_verified(step, meta)
                self._pending = None

    def wait(self) -> None:
        """Wait for the save in progress, and mark it as verified once it is committed.

        Raises:
          StorageError: the save failed; earlier steps are unchanged.
          PeerLost: another process ended during the save.
        """
        if not self._pending:
            return
        step, meta = self._pending
        self._pending = None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as e:  # The storage layers raise many kinds of errors.
            raise _save_error(f"Checkpoint {step} was not written", e) from e
        if not self._is_committed(step):
            raise StorageError(
                f"Checkpoint {step} was written but has no {COMMIT_MARKER}; check the "
                f"storage of {self._checkpoints} and run the same command again."
            )
        self._mark_verified(step, meta)

    def _is_committed(self, step: int) -> bool:
        return (self._checkpoints / str(step) / COMMIT_MARKER).exists()

    def _mark_verified(self, step: int, meta: dict) -> None:
        """Write verified/<step>.json, on process 0 alone."""
        if not processes.is_first():
            return
        record = {"step": step, "finite": True, "digests": meta["digests"]}
        try:
            self._verified.mkdir(parents=True, exist_ok=True)
            write_atomic(self._verified / f"{step}.json", json.dumps(record))
            for file in self._verified.glob("*.json"):
                if not self._is_committed(int(file.stem)):
                    file.unlink()
        except OSError as e:
            raise write_error(self._verified, e) from e

    def restore_latest(self, abstract) -> Any:
        """Restore the newest undamaged step; return None if there are no steps.

        `abstract` holds shapes, dtypes and shardings, which may be those of any mesh.

        Raises:
          CheckpointError: there are steps, and either none is undamaged or they belong to
            another model. Training never starts from scratch over them.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            # Damage may be limited to the shards of one process: all skip the step.
            try:
                load = functools.partial(self._load, step, abstract)
                name = f"restore {step}"
                state, meta = processes.run_on_all(name, load, AGREEMENT_SECONDS)
            except UnreadableStep as e:
                log.warning("%s; trying an older one", e)
                continue
            digests, _ = digest_leaves(state)
            if digests != meta["digests"] or int(state.step) != step:
                log.warning("checkpoint %d is damaged; trying an older one", step)
                continue
            self._move_to_damaged([s for s in steps if s > step])
            self._mark_verified(step, meta)
            return state
        if steps:
            listed = ", ".join(map(str, steps))
            raise CheckpointError(
                f"Resuming needs an undamaged checkpoint; none of the steps {listed} in "
                f"{self._checkpoints} is undamaged. Move the directory away to start from "
                "scratch."
            )
        return None

    def _move_to_damaged(self, steps: list[int]) -> None:
        """Move skipped steps to damaged/, because training reaches their numbers again."""
        if not steps:
            return
        for step in steps if processes.is_first() else []:
            target = self._damaged / f"{step}-{int(time.time())}"
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._checkpoints / str(step)).rename(target)
            log.warning("checkpoint %d was moved to %s", step, target)
        processes.barrier("move damaged checkpoints", AGREEMENT_SECONDS)
        self._manager.reload()

    def _load(self, step: int, abstract) -> tuple[Any, dict]:
        """Read the state and the meta of a step.

        Orbax's handlers are called instead of its manager, because the manager would wait
        for processes that have already failed.

        Raises:
          UnreadableStep: a file is missing or truncated.
          CheckpointError: the step belongs to another model.
        """
        directory = self._checkpoints / str(step)
        try:
            meta = read_item(directory, "meta")
        except (
            Exception
        ) as e:  # Truncated and missing files raise many kinds of errors.
            raise _unreadable(step, e) from e
        expected = {
            path: shape_and_dtype(leaf)
            for path, leaf in trees.leaves_by_path(abstract).items()
        }
        differences = leaf_differences(meta["leaves"], expected)
        if differences:
            raise CheckpointError(
                f"Checkpoint {step} must hold the model of this config, but "
                f"{len(differences)} arrays differ: {'; '.join(differences[:3])}. Use the "
                "config it was trained with or choose another --workdir."
            )
        try:
            state = read_item(directory, "state", abstract)
        except Exception as e:
            raise _unreadable(step, e) from e
        return state, meta

    def close(self) -> None:
        """Wait for the save in progress and release Orbax's manager."""
        try:
            self.wait()
        finally:
            self._manager.close()


def _unreadable(step: int, error: Exception) -> UnreadableStep:
    return UnreadableStep(f"checkpoint {step} cannot be read: {short_message(error)}")


def verified_steps(workdir) -> list[int]:
    """Return the committed and verified steps of a run, ascending; write nothing."""
    workdir = epath.Path(workdir)
    verified = workdir / "verified"
    files = verified.glob("*.json") if verified.exists() else []
    return sorted(
        int(file.stem)
        for file in files
        if (workdir / "checkpoints" / file.stem / COMMIT_MARKER).exists()
    )


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
    return steps[-1] if step is None else step


def restore_subtree(workdir, step: int, abstract) -> Any:
    """Restore a subtree of a verified state and check its digests.

    `abstract`: nested dicts down to leaves that hold shapes, dtypes and shardings.

    Raises:
      CheckpointError: the step is unreadable or damaged, or its shapes differ.
    """
    workdir = epath.Path(workdir).resolve()
    source = f"{workdir}, step {step}"
    try:
        record = json.loads((workdir / "verified" / f"{step}.json").read_text())
    except (OSError, ValueError) as e:  # A running trainer may have deleted the step.
        raise CheckpointError(
            f"{source} is not available any more: {short_message(e)}. A running trainer may "
            "have deleted it. Choose another step or raise checkpoint.keep."
        ) from e
    missing = [p for p in trees.leaves_by_path(abstract) if p not in record["digests"]]
    if missing:
        raise CheckpointError(
            f"{source} has no {missing[0]}; {len(missing)} of the requested arrays are "
            "missing. Request weights that the run has."
        )
    try:
        subtree = read_item(workdir / "checkpoints" / str(step), "state", abstract)
    except Exception as e:  # Other shapes and broken files raise many kinds of errors.
        raise CheckpointError(
            f"{source} cannot be read: {short_message(e)}. Choose another step."
        ) from e
    digests, _ = digest_leaves(subtree)
    damaged = [path for path, d in digests.items() if record["digests"][path] != d]
    if damaged:
        raise CheckpointError(
            f"{source} is damaged: {len(damaged)} arrays do not have the digests in "
            f"verified/{step}.json, {damaged[0]} among them. Choose another step."
        )
    return subtree
