"""The processes of a run: how one joins the others, and what they tell each other.

They talk through JAX's coordination service and not through devices: it works while
devices compile or hang, and its barriers know who is missing. A run of one process makes
the same calls; nothing waits then.
"""

import collections
import contextlib
import dataclasses
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax

# The client of the coordination service has no public name; Orbax takes it from here too.
from jax._src import clusters, distributed

from ul.core import errors
from ul.core.errors import (
    ConfigError,
    OutOfMemory,
    PeerLost,
    Preempted,
    Stalled,
    UserError,
)

log = logging.getLogger("ul")
T = TypeVar("T")

# Leaving waits so long for the others, who may still be reading why; or, where all stop
# together, may still be at the end of a save.
LEAVE_SECONDS = 5
# How messages of collectives and barriers that failed name what failed.
COLLECTIVE = ("gloo", "nccl", "collective", "coordination", "barrier", "heartbeat")
TOGETHER_SECONDS = 60
_uses: collections.Counter[str] = collections.Counter()


@dataclasses.dataclass(frozen=True)
class Meeting:
    """How processes find each other.

    mode: "auto" joins where JAX knows the cluster or all of `coordinator` (host:port),
    `count` and `index` are given; "on" must join; "off" never does.
    peer_seconds: how long a process may be silent before the others end.
    """

    mode: str = "auto"
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    start_seconds: int = 300
    peer_seconds: int = 100


def join(meeting: Meeting) -> None:
    """Join the other processes, before JAX touches a device.

    Raises:
      ConfigError: the settings do not fit each other or the place.
    """
    by_hand = (meeting.coordinator, meeting.count, meeting.index)
    given = [v is not None for v in by_hand]
    if any(given) and not all(given):
        raise ConfigError(
            "--coordinator, --num_processes and --process_id go together; give all or none"
        )
    if all(given) and not 0 <= (meeting.index or 0) < (meeting.count or 0):
        raise ConfigError(
            f"--process_id {meeting.index} is not below --num_processes {meeting.count}"
        )
    place = "by hand" if all(given) else _cluster()
    if meeting.mode == "off" or not place:
        if meeting.mode == "on":
            raise ConfigError(
                "--distributed=on, but JAX finds no cluster here; give --coordinator, "
                "--num_processes and --process_id"
            )
        return
    # It would take SIGTERM for itself; train/guard.py also hears Ctrl-C, and all phases.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=meeting.coordinator,
            num_processes=meeting.count,
            process_id=meeting.index,
            local_device_ids=_devices_of_node(),
            initialization_timeout=meeting.start_seconds,
            heartbeat_timeout_seconds=meeting.peer_seconds,
        )
    except (ValueError, RuntimeError) as e:
        raise ConfigError(f"the processes cannot meet ({place}): {_first(e)}") from e
    log.info("process %d of %d (%s)", index(), count(), place)


def _cluster() -> str:
    """The name of the cluster of several processes that JAX detects; none is empty."""
    for kind in clusters.ClusterEnv._cluster_types:
        if not kind.opt_in_only_method and kind.is_env_present():
            return kind.name
    return ""


def _devices_of_node() -> list[int] | None:
    """All GPUs of a node that has one task: JAX would give a SLURM task only its own."""
    tasks, gpus = (
        os.environ.get(f"SLURM_{name}", "")
        for name in ("NTASKS_PER_NODE", "GPUS_ON_NODE")
    )
    return list(range(int(gpus))) if tasks == "1" and gpus.isdigit() else None


def index() -> int:
    """This process's number; 0 writes what one process alone may write."""
    return distributed.global_state.process_id


def count() -> int:
    """Processes of the run."""
    return distributed.global_state.num_processes


def is_first() -> bool:
    return index() == 0


def check_devices(wanted: str) -> None:
    """`wanted`: "gpu:8", "tpu", ":8" ...: what must be there over all processes.

    Raises:
      ConfigError: other devices are, say a CPU because an accelerator failed to start.
    """
    platform, _, number = wanted.partition(":")
    if number and not number.isdigit():
        raise ConfigError(f"--devices is {wanted!r}; say platform:count, as gpu:8")
    try:
        devices = jax.devices()
    except RuntimeError as e:
        raise ConfigError(f"--devices={wanted}, but {_first(e)}") from e
    found = devices[0].platform
    if platform not in ("", found) or number and int(number) != len(devices):
        raise ConfigError(
            f"--devices={wanted}, but JAX finds {found}:{len(devices)} over {count()} "
            "processes; look at the driver, at JAX_PLATFORMS and at the job's nodes"
        )


def _client() -> Any:
    return distributed.global_state.client


def _once(name: str) -> str:
    """A barrier's or key's name at its n-th use: the same on every process."""
    _uses[name] += 1
    return f"ul/{name}/{_uses[name]}"


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _missing(error: Exception) -> str:
    """Which processes a barrier's error names, as "1, 3": one a line, after a heading."""
    _, _, late = str(error).partition("timed out task names:")
    names = re.findall(r"^(?:.*task:)?(\d+)$", late, re.MULTILINE)
    return ", ".join(sorted(set(names), key=int)) or "unknown"


def barrier(name: str, seconds: float) -> None:
    """Wait until all processes are here.

    Raises:
      Stalled: some were not, within `seconds`; naming them.
    """
    if count() > 1:
        _wait(name, _once(name), seconds)


def _wait(name: str, key: str, seconds: float) -> None:
    try:
        _client().wait_at_barrier(key, int(1000 * seconds))
    except Exception as e:  # jaxlib raises one kind for all of them
        if "DEADLINE" not in str(e).upper():
            raise Stalled(f"barrier {name!r} failed: {_first(e)}") from e
        raise Stalled(
            f"barrier {name!r}: process {_missing(e)} did not come within {seconds:g} s"
        ) from e


def gather(name: str, text: str, seconds: float) -> list[str]:
    """What every process says, by process.

    Raises:
      Stalled: as `barrier`.
    """
    if count() == 1:
        return [text]
    key = _once(name)
    _client().key_value_set(f"{key}/{index()}", text)
    _wait(name, f"{key}/all", seconds)
    found = dict(_client().key_value_dir_get(f"{key}/"))
    return [found[f"{key}/{i}"] for i in range(count())]


def agree(name: str, fn: Callable[[], T], seconds: float) -> T:
    """`fn()` on every process; its result, where it succeeds on all of them.

    Raises:
      UserError: that of the first process where it failed, on every process.
      Stalled: as `barrier`.
    """
    failure, result = None, None
    try:
        result = fn()
    except UserError as e:
        failure = e
    if count() == 1 and failure:
        raise failure
    said = f"{type(failure).__name__} {failure}" if failure else ""
    for i, text in enumerate(gather(name, said, seconds)):
        if text:
            kind, _, line = text.partition(" ")
            raise getattr(errors, kind)(
                line if i == index() else f"process {i}: {line}"
            )
    return result  # type: ignore[return-value]


def from_first(name: str, fn: Callable[[], Any], seconds: float) -> Any:
    """What `fn()` gives on process 0 (JSON), on every process.

    Raises:
      UserError, Stalled: as `agree`.
    """
    mine = agree(name, lambda: fn() if is_first() else None, seconds)
    return json.loads(gather(name, json.dumps(mine), seconds)[0])


def post(board: str, text: str) -> None:
    """Put `text` on a board that every process can look at; one note a process."""
    if count() > 1:
        try:
            _client().key_value_set(f"ul/{board}/{index()}", text, allow_overwrite=True)
        except Exception:  # the service is gone: nobody is left to read
            pass


def read(board: str) -> dict[int, str]:
    """The notes of the other processes on a board."""
    if count() == 1:
        return {}
    try:
        notes = _client().key_value_dir_get(f"ul/{board}/")
    except Exception:  # none yet, or no service any more: JAX ends the process then
        return {}
    by_process = {int(key.rsplit("/", 1)[1]): text for key, text in notes}
    return {i: text for i, text in by_process.items() if i != index()}


def leave(code: int, reason: str = "", seconds: int = LEAVE_SECONDS) -> NoReturn:
    """End this process with `code` and tell the others why.

    JAX would wait minutes at exit for processes that are stuck in a collective.
    """
    if reason:
        post("failed", f"{code} {reason}")
    try:
        if count() > 1:
            _client().wait_at_barrier("ul/leave", 1000 * seconds)
    except Exception:  # they are stuck, or gone: the code says what there is to say
        pass
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end(code: int, reason: str) -> NoReturn:
    """End this process after an error; others that wait for it are told.

    After Preempted they are ending too, and are not to be hurried.
    """
    if count() > 1 and code == Preempted.code:
        leave(code, seconds=TOGETHER_SECONDS)
    if count() > 1:
        leave(code, reason)
    sys.exit(code)


def of_a_peer(error: Exception) -> bool:
    """Whether a collective or a barrier failed, whatever kind of error it came as: a
    value read from a device brings ValueError, as full disks do."""
    text = str(error).lower()
    return count() > 1 and any(word in text for word in COLLECTIVE)


def peer_lost(error: Exception) -> PeerLost:
    """What to raise where a collective failed."""
    time.sleep(LEAVE_SECONDS)  # if it left with a reason, the guard ends this one
    return PeerLost(
        f"another process is gone ({_first(error)}); run the same command again"
    )


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What JAX raises for a device that is full or a process that is gone, in one line.

    Raises:
      OutOfMemory, PeerLost: instead of jax.errors.JaxRuntimeError.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if "out of memory" in str(e).lower():
            raise OutOfMemory(
                f"a device has not enough memory ({_first(e)}); lower batch_size, raise "
                "accumulate or mesh.fsdp, or set the networks' remat to 'full'"
            ) from e
        if count() == 1:
            raise
        raise peer_lost(e) from e
