"""Checkpoints: Orbax, committed by a marker file, then verified by digests.

    checkpoints/<step>/     state, and meta: digest, shape and dtype of every leaf
    verified/<step>.json    written once the commit was seen; readers trust only these

A committed step proves itself: its leaves must have the digests in its meta. So a
kill between the commit and the verification costs nothing; the trainer verifies the
step when it resumes.
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
from ul.core.files import write_atomic

with epy.lazy_imports():  # what was exported is loaded without it
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

log = logging.getLogger("ul")

# Orbax's marker of a whole step (AtomicityMode.COMMIT_FILE).
COMMITTED = "commit_success.txt"
# Seconds that processes wait for each other around a restore.
AGREE = 900.0


def short(error: Exception) -> str:
    """The part of a storage library's message that a person reads."""
    line = str(error).split(" [tensorstore_spec")[0].split("\n")[0]
    return line if len(line) <= 300 else line[:300] + "..."


def _failed(what: str, error: Exception) -> UserError:
    """Of the storage or, where a collective of the save failed, of another process."""
    if processes.of_a_peer(error):
        return processes.peer_lost(error)
    return StorageError(f"{what}: {short(error)}")


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


def fingerprint(tree) -> str:
    """Eight hex digits that change when any bit of any leaf does."""
    digests, _ = measure(tree)
    return f"{zlib.crc32(json.dumps(digests, sort_keys=True).encode()):08x}"


def differences(found: dict[str, list], wanted: dict[str, list]) -> list[str]:
    """Paths whose shape or dtype differ or that only one side has."""
    return [
        f"{path}: saved {found.get(path, 'nothing')}, wanted {wanted.get(path, 'nothing')}"
        for path in sorted(found.keys() | wanted.keys())
        if found.get(path) != wanted.get(path)
    ]


def read(step: epath.Path, item: str, abstract: Any = None) -> Any:
    """An item of a step: JSON, or the part `abstract` of a state, laid out as it says."""
    if abstract is None:
        return ocp.JsonCheckpointHandler().restore(step / item)
    how = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return ocp.PyTreeCheckpointHandler().restore(step / item, args=how)


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
        self._steps = epath.Path(workdir).resolve() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._steps,
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
          PeerLost: another process went away meanwhile.
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
            raise _failed(f"checkpoint {step} cannot be written", e) from e
        self._pending = (step, meta)

    def poll(self) -> None:
        """Mark the save under way as verified if it is done: cheap, called every step.

        No process waits for another here: they see the end of a save at different steps.
        """
        if self._pending and not self._manager.is_saving_in_progress():
            step, meta = self._pending
            if processes.is_first() and self._committed(step):
                self._mark(step, meta)
                self._pending = None

    def wait(self) -> None:
        """Finish the save under way and see its commit.

        Raises:
          StorageError: it failed; the steps before it are as they were.
          PeerLost: another process went away meanwhile.
        """
        if not self._pending:
            return
        step, meta = self._pending
        self._pending = None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as e:  # Whatever the storage layers raise.
            raise _failed(f"checkpoint {step} was not written", e) from e
        if not self._committed(step):
            raise StorageError(f"checkpoint {step} was written but never committed")
        self._mark(step, meta)

    def _committed(self, step: int) -> bool:
        return (self._steps / str(step) / COMMITTED).exists()

    def _mark(self, step: int, meta: dict) -> None:
        """Process 0 alone; the others have nothing to wait for."""
        if not processes.is_first():
            return
        record = {"step": step, "finite": True, "digests": meta["digests"]}
        try:
            self._verified.mkdir(parents=True, exist_ok=True)
            write_atomic(self._verified / f"{step}.json", json.dumps(record))
            for file in self._verified.glob("*.json"):
                if not self._committed(int(file.stem)):
                    file.unlink()
        except OSError as e:
            raise StorageError(f"{self._verified} cannot be written: {e}") from e

    def resume(self, abstract) -> Any:
        """The newest step that can be read and has its digests; None if there is none.

        `abstract` carries shapes, dtypes and shardings: any mesh will do.

        Raises:
          CheckpointError: there are steps and none can be used, or they are of another
            model. Training never starts afresh over them.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            # A damaged file may hurt the shards of one process alone: all pass it over.
            try:
                load = functools.partial(self._load, step, abstract)
                state, meta = processes.agree(f"restore {step}", load, AGREE)
            except UnreadableStep as e:
                log.warning("checkpoint %d %s, trying an older one", step, e)
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
                f"none of the checkpoints {steps} in {self._steps} can be "
                "read; move them away to start afresh"
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Move steps that were passed over to damaged/: their numbers come again."""
        if not steps:
            return
        for step in steps if processes.is_first() else []:
            where = self._damaged / f"{step}-{int(time.time())}"
            where.parent.mkdir(parents=True, exist_ok=True)
            (self._steps / str(step)).rename(where)
            log.warning("checkpoint %d was moved to %s", step, where)
        processes.barrier("set aside", AGREE)
        self._manager.reload()

    def _load(self, step: int, abstract):
        """State and meta of a step. The handlers are asked and not the manager, which
        would wait for processes that had an error."""
        try:
            meta = read(self._steps / str(step), "meta")
        except Exception as e:  # Truncated or missing files raise many kinds.
            raise UnreadableStep(f"cannot be read: {short(e)}") from e
        wanted = {path: describe(leaf) for path, leaf in trees.paths(abstract).items()}
        differs = differences(meta["leaves"], wanted)
        if differs:
            raise CheckpointError(
                f"checkpoint {step} is of another model, {len(differs)} leaves differ: "
                + "; ".join(differs[:3])
            )
        try:
            state = read(self._steps / str(step), "state", abstract)
        except Exception as e:
            raise UnreadableStep(f"cannot be read: {short(e)}") from e
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
        if (workdir / "checkpoints" / file.stem / COMMITTED).exists()
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
    try:
        record = json.loads((workdir / "verified" / f"{step}.json").read_text())
    except (OSError, ValueError) as e:  # a running trainer may have deleted the step
        raise CheckpointError(f"{workdir} step {step} is gone: {short(e)}") from e
    wanted = trees.paths(abstract)
    missing = [path for path in wanted if path not in record["digests"]]
    if missing:
        raise CheckpointError(
            f"{workdir} step {step} has no {missing[0]} ({len(missing)} leaves missing)"
        )
    try:
        found = read(workdir / "checkpoints" / str(step), "state", abstract)
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
