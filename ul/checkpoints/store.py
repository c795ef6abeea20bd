"""The trainer's checkpoints: saved by Orbax, committed by a marker file, then verified.

A committed step can be checked without its verified/ file: its leaves must have the
digests in its meta. A kill between the commit and the verification therefore loses
nothing, because the trainer verifies the step when it resumes.

unfinished.json names the step that is being saved. Only that step may be removed when a
killed run starts again; nothing else that lacks a marker is ever deleted.
"""

import contextlib
import functools
import json
import logging
import time
from typing import Any

from etils import epath, epy

from ul.checkpoints import digests, reading
from ul.checkpoints.reading import COMMIT_MARKER, SCHEMA, UNFINISHED
from ul.core import files, processes, sealed_json, storage
from ul.core.errors import (
    CheckpointError,
    NonFiniteError,
    StorageError,
    UnreadableStep,
    UnusablePath,
    UserError,
)
from ul.core.files import write_atomic

with epy.lazy_imports():  # Exported models are loaded without Orbax.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

log = logging.getLogger("ul")

# Seconds that processes wait for each other around a restore.
AGREEMENT_SECONDS = 900.0

ARRAY_INDEX = "manifest.ocdbt"  # in the folder of a state


def _save_error(message: str, error: Exception) -> UserError:
    """Return the error to raise for a failed save.

    It is PeerLost where a collective of the save failed, UnusablePath where waiting cannot
    help, and StorageError otherwise.
    """
    if processes.is_peer_failure(error):
        return processes.peer_lost_error(error)
    text = f"{message}: {reading.short_message(error)}"
    if storage.is_storage_error(error) and not storage.may_pass(error):
        return UnusablePath(f"{text}. Change its permissions or choose another path.")
    return StorageError(text)


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
        self._workdir = epath.Path(workdir).resolve()
        self._verified = self._workdir / "verified"
        self._damaged = self._workdir / "damaged"
        preserve: list = [policies.LatestN(keep)]
        if keep_every:
            preserve.append(policies.EveryNSteps(keep_every))
        if keep_minutes:
            preserve.append(policies.EveryNSeconds(round(60 * keep_minutes)))
        self._checkpoints = self._workdir / "checkpoints"
        processes.run_on_first(
            "remove unfinished save", self._remove_unfinished, AGREEMENT_SECONDS
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(preserve),
            # The default would list half-written steps.
            atomicity_options=ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            ),
            # It would delete every step without a marker, whoever wrote it.
            cleanup_tmp_directories=False,
            enable_async_checkpointing=True,
        )
        self._manager = files.write(
            lambda: ocp.CheckpointManager(self._checkpoints, options=options),
            self._checkpoints,
        )
        self._pending: tuple[int, dict] | None = None

    def _remove_unfinished(self) -> None:
        """Remove the step that a start of this run was saving when it was killed."""
        step = reading.unfinished_step(self._workdir)
        if step is None:
            return
        directory = self._checkpoints / str(step)

        def remove():
            if files.exists(directory) and not self._is_committed(step):
                directory.rmtree()
                log.warning("removed checkpoint %d, which was not finished", step)
            (self._workdir / UNFINISHED).unlink(missing_ok=True)

        files.write(remove, directory)

    def save(self, step: int, state) -> None:
        """Start saving `state`; return as soon as it is copied off the devices.

        Raises:
          NonFiniteError: some leaf is not finite; nothing is saved.
          StorageError: this save or the previous one failed.
          PeerLost: another process ended during the save.
        """
        self.wait()
        leaf_digests, nonfinite = digests.digest_leaves(state)
        if nonfinite:
            raise NonFiniteError(
                f"Every array of a checkpoint must be finite; at step {step} "
                f"{len(nonfinite)} are not finite, the first is {nonfinite[0]}. Lower "
                "optimizer.lr or check the data, then resume from the last checkpoint."
            )
        meta = sealed_json.seal(
            {
                "schema": SCHEMA,
                "step": step,
                "digests": leaf_digests,
                "leaves": digests.shapes_and_dtypes(state),
            }
        )
        if processes.is_first():
            write_atomic(self._workdir / UNFINISHED, json.dumps({"step": step}))
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
        if not self._pending or self._manager.is_saving_in_progress():
            return
        step, meta = self._pending
        if (
            processes.is_first()
            and self._is_committed(step)
            and files.exists(self._array_index(step))
        ):
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
        # Orbax commits a step even if it did not find what its processes wrote.
        if not files.exists(self._array_index(step)):
            raise StorageError(
                f"Checkpoint {step} was written, but {ARRAY_INDEX} is missing, which lists its "
                "arrays. Check the storage and run the same command again."
            )
        self._mark_verified(step, meta)

    def _array_index(self, step: int) -> epath.Path:
        return self._checkpoints / str(step) / "state" / ARRAY_INDEX

    def _is_committed(self, step: int) -> bool:
        return reading.is_committed(self._workdir, step)

    def _mark_verified(self, step: int, meta: dict) -> None:
        """Write verified/<step>.json, on process 0 alone."""
        if not processes.is_first():
            return
        record = {"step": step, "finite": True, "digests": meta["digests"]}

        def write():
            self._verified.mkdir(parents=True, exist_ok=True)
            write_atomic(self._verified / f"{step}.json", json.dumps(record))
            for other in reading.recorded_steps(self._workdir):
                if not self._is_committed(other):
                    (self._verified / f"{other}.json").unlink(missing_ok=True)
            if reading.unfinished_step(self._workdir) == step:
                (self._workdir / UNFINISHED).unlink(missing_ok=True)

        files.write(write, self._verified)

    def restore_latest(self, abstract) -> Any:
        """Restore the newest undamaged step; return None if there are no steps.

        `abstract` holds shapes, dtypes and shardings, which may be those of any mesh.

        Raises:
          CheckpointError: there are steps, and either none is undamaged or they belong to
            another model. Training never starts from scratch over them.
          StorageError: the storage fails. Nothing is moved then.
        """
        steps = reading.committed_steps(self._workdir)[::-1]
        for step in steps:
            # Damage may be limited to the shards of one process: all skip the step.
            try:
                load = functools.partial(self._load, step, abstract)
                name = f"restore {step}"
                state, meta = processes.run_on_all(name, load, AGREEMENT_SECONDS)
            except UnreadableStep as e:
                log.warning("%s; trying an older one", e)
                continue
            leaf_digests, _ = digests.digest_leaves(state)
            if leaf_digests != meta["digests"] or int(state.step) != step:
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
            files.write(functools.partial(self._move, step, target), target)
            log.warning("checkpoint %d was moved to %s", step, target)
        processes.barrier("move damaged checkpoints", AGREEMENT_SECONDS)
        self._manager.reload()

    def _move(self, step: int, target: epath.Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The record goes first: a record without its step would stop every start.
        (self._verified / f"{step}.json").unlink(missing_ok=True)
        (self._checkpoints / str(step)).rename(target)

    def _load(self, step: int, abstract) -> tuple[Any, dict]:
        """Read the state and the meta of a step.

        Raises:
          UnreadableStep: the step is damaged.
          CheckpointError: the step belongs to another model.
          StorageError: the storage fails.
        """
        meta = reading.load_meta(self._workdir, step)
        differences = digests.leaf_differences(
            meta["leaves"], digests.shapes_and_dtypes(abstract)
        )
        if differences:
            raise CheckpointError(
                f"Checkpoint {step} must hold the model of this config, but "
                f"{len(differences)} arrays differ: {'; '.join(differences[:3])}. Use the "
                "config it was trained with or choose another --workdir."
            )
        return reading.load_state(self._workdir, step, abstract), meta

    def close(self) -> None:
        """Wait for the save in progress and release Orbax's manager.

        Raises:
          StorageError, PeerLost: as `wait`.
        """
        try:
            self.wait()
        finally:
            # Orbax raises the error of a failed save a second time, which would hide the
            # first one.
            with contextlib.suppress(Exception):
                self._manager.close()
