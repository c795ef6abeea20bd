"""Checkpoints: Orbax, committed by a marker file, then verified by digests.

    checkpoints/<step>/     state, and meta: digest, shape and dtype of every leaf
    verified/<step>.json    written once the commit was seen; readers trust only these

A committed step proves itself: its leaves must have the digests in its meta. So a
kill between the commit and the verification costs nothing; the trainer verifies the
step when it resumes.
"""

import json
import logging
import time
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from ul.core import trees
from ul.core.errors import CheckpointError, NonFiniteError, StorageError
from ul.train.workdir import write_atomic

log = logging.getLogger("ul")


def short(error: Exception) -> str:
    """The part of a storage library's message that a person reads."""
    line = str(error).split(" [tensorstore_spec")[0].split("\n")[0]
    return line if len(line) <= 300 else line[:300] + "..."


def describe(leaf) -> list:
    """[shape, dtype] of a leaf, as JSON keeps it."""
    return [list(leaf.shape), str(leaf.dtype)]


@jax.jit
def _measure(tree):
    return jax.tree.map(trees.digest, tree), jax.tree.map(trees.finite, tree)


def measure(tree) -> tuple[dict[str, int], list[str]]:
    """Digest of every leaf by path, and the paths of leaves that are not finite."""
    digests, finite = jax.device_get(_measure(tree))
    return (
        {path: int(d) for path, d in trees.paths(digests).items()},
        [path for path, ok in trees.paths(finite).items() if not ok],
    )


def differences(found: dict[str, list], wanted: dict[str, list]) -> list[str]:
    """Paths whose shape or dtype differ or that only one side has."""
    return [
        f"{path}: saved {found.get(path, 'nothing')}, wanted {wanted.get(path, 'nothing')}"
        for path in sorted(found.keys() | wanted.keys())
        if found.get(path) != wanted.get(path)
    ]


class Checkpoints:
    """The trainer's side: saves, confirms, resumes. One process owns a workdir."""

    def __init__(
        self, workdir, *, keep: int, keep_every: int = 0, keep_minutes: float = 0.0
    ):
        """Keeps the last `keep` steps; for good, every multiple of `keep_every` and one
        each `keep_minutes` (0: none)."""
        self._verified = epath.Path(workdir) / "verified"
        self._damaged = epath.Path(workdir) / "damaged"
        preserve: list = [policies.LatestN(keep)]
        if keep_every:
            preserve.append(policies.EveryNSteps(keep_every))
        if keep_minutes:
            preserve.append(policies.EveryNSeconds(round(60 * keep_minutes)))
        self._manager = ocp.CheckpointManager(
            epath.Path(workdir).resolve() / "checkpoints",
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
        """Start saving `state`; returns as soon as it is copied off the devices.

        Raises:
          NonFiniteError: some leaf is not finite; nothing is saved.
          StorageError: this save or the one before failed.
        """
        self.wait()
        digests, broken = measure(state)
        if broken:
            raise NonFiniteError(
                f"step {step} is not saved, {len(broken)} leaves are not finite: {broken[0]}"
            )
        leaves = {path: describe(leaf) for path, leaf in trees.paths(state).items()}
        meta = {"schema": 1, "step": step, "digests": digests, "leaves": leaves}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        )
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError) as e:
            raise StorageError(
                f"checkpoint {step} cannot be written: {short(e)}"
            ) from e
        self._pending = (step, meta)

    def poll(self) -> None:
        """Verify the save under way if it is done: cheap, called every step."""
        if self._pending and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Finish the save under way and see its commit.

        Raises:
          StorageError: it failed; the steps before it are as they were.
        """
        if not self._pending:
            return
        step, meta = self._pending
        self._pending = None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as e:  # Whatever the storage layers raise.
            raise StorageError(f"checkpoint {step} was not written: {short(e)}") from e
        self._manager.reload()
        if step not in self._manager.all_steps():
            raise StorageError(f"checkpoint {step} was written but never committed")
        self._mark(step, meta)

    def _mark(self, step: int, meta: dict) -> None:
        if jax.process_index() == 0:
            self._verified.mkdir(parents=True, exist_ok=True)
            record = {"step": step, "finite": True, "digests": meta["digests"]}
            write_atomic(self._verified / f"{step}.json", json.dumps(record))
            kept = {str(s) for s in self._manager.all_steps()}
            for file in self._verified.glob("*.json"):
                if file.stem not in kept:
                    file.unlink()

    def resume(self, abstract) -> Any:
        """The newest step that can be read and has its digests; None if there is none.

        `abstract` carries shapes, dtypes and shardings: any mesh will do.

        Raises:
          CheckpointError: there are steps and none can be used, or they are of another
            model. Training never starts afresh over them.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                state, meta = self._load(step, abstract)
            except CheckpointError:
                raise
            except Exception as e:  # Truncated or missing files raise many kinds.
                log.warning(
                    "checkpoint %d cannot be read, trying an older one: %s",
                    step,
                    short(e),
                )
                continue
            digests, _ = measure(state)
            if digests != meta["digests"] or int(state.step) != step:
                log.warning("checkpoint %d is damaged, trying an older one", step)
                continue
            self._set_aside([s for s in steps if s > step])
            self._mark(step, meta)
            return state
        if steps:
            raise CheckpointError(
                f"none of the checkpoints {steps} in {self._manager.directory} can be "
                "read; move them away to start afresh"
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Move steps that were passed over to damaged/: their numbers come again."""
        for step in steps if jax.process_index() == 0 else []:
            where = self._damaged / f"{step}-{int(time.time())}"
            where.parent.mkdir(parents=True, exist_ok=True)
            (self._manager.directory / str(step)).rename(where)
            log.warning("checkpoint %d was moved to %s", step, where)
        self._manager.reload()

    def _load(self, step: int, abstract):
        meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )["meta"]
        wanted = {path: describe(leaf) for path, leaf in trees.paths(abstract).items()}
        differs = differences(meta["leaves"], wanted)
        if differs:
            raise CheckpointError(
                f"checkpoint {step} is of another model, {len(differs)} leaves differ: "
                + "; ".join(differs[:3])
            )
        state = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )["state"]
        return state, meta

    def close(self) -> None:
        """Finish what is under way and let go."""
        try:
            self.wait()
        finally:
            self._manager.close()


def verified_steps(workdir) -> list[int]:
    """Steps of a run that are committed and verified, ascending. Reads only."""
    workdir = epath.Path(workdir)
    files = (
        (workdir / "verified").glob("*.json") if (workdir / "verified").exists() else []
    )
    return sorted(
        int(file.stem)
        for file in files
        if (workdir / "checkpoints" / file.stem / "commit_success.txt").exists()
    )


def choose(workdir, step: int | None) -> int:
    """`step`, or the newest one, provided that it is verified.

    Raises:
      CheckpointError: naming what there is.
    """
    steps = verified_steps(workdir)
    if not steps:
        raise CheckpointError(
            f"{workdir} has no verified checkpoint; train there first, or run its "
            "training command once more to verify what it left"
        )
    if step is not None and step not in steps:
        raise CheckpointError(f"{workdir} has no verified step {step}, only {steps}")
    return steps[-1] if step is None else step


def restore_part(workdir, step: int, abstract) -> Any:
    """The part `abstract` of a verified state (nested dicts), its digests checked.

    Raises:
      CheckpointError: unreadable, damaged, or of other shapes, naming the leaves.
    """
    workdir = epath.Path(workdir).resolve()
    record = json.loads((workdir / "verified" / f"{step}.json").read_text())
    wanted = trees.paths(abstract)
    missing = [path for path in wanted if path not in record["digests"]]
    if missing:
        raise CheckpointError(
            f"{workdir} step {step} has no {missing[0]} ({len(missing)} leaves missing)"
        )
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        found = checkpointer.restore(
            workdir / "checkpoints" / str(step) / "state",
            args=ocp.args.PyTreeRestore(
                item=abstract,
                restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                partial_restore=True,
            ),
        )
    except Exception as e:  # Shape mismatches and broken files raise many kinds.
        raise CheckpointError(
            f"{workdir} step {step} cannot be read: {short(e)}"
        ) from e
    digests, _ = measure(found)
    damaged = [path for path, d in digests.items() if record["digests"][path] != d]
    if damaged:
        raise CheckpointError(
            f"{workdir} step {step} is damaged: {len(damaged)} leaves, {damaged[0]} among them"
        )
    return found
