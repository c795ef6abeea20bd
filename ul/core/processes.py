"""The processes of a run: joining the others, agreeing with them, and exiting.

The processes communicate through JAX's coordination service and not through devices. The
service works while devices compile or hang, and its barriers report who is missing. A run
of one process makes the same calls, and none of them waits.
"""

import collections
import contextlib
import dataclasses
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax

from ul.core import errors
from ul.core.errors import (
    ConfigError,
    OutOfMemory,
    PeerLost,
    Preempted,
    Stalled,
    UserError,
)
from ul.core.jax_internals import internal_module

log = logging.getLogger("ul")
T = TypeVar("T")

# An exiting process waits for the others: after an error they may still have to read the
# reason; after a preemption they may still have to finish a save.
EXIT_BARRIER_SECONDS = 5
PREEMPTED_EXIT_SECONDS = 60
# Process 0 serves the coordination service. If it leaves first, JAX aborts those that have
# passed the barrier and are still exiting.
LEAVE_LAST_SECONDS = 2.0
# Words in the messages of collectives and barriers that failed.
COLLECTIVE_WORDS = (
    "gloo",
    "nccl",
    "collective",
    "coordination",
    "barrier",
    "heartbeat",
)
_num_uses: collections.Counter[str] = collections.Counter()


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """The addresses and time limits with which a process joins the others of its run.

    mode: "auto" joins others if JAX detects a cluster, or if all of `coordinator`
      (host:port), `num_processes` and `process_id` are given; "on" fails if neither is
      the case; "off" never joins.
    start_timeout: seconds to wait for the other processes to join.
    peer_timeout: seconds of silence after which a process counts as dead.
    """

    mode: str = "auto"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    start_timeout: int = 300
    peer_timeout: int = 100


def join(spec: ClusterSpec) -> None:
    """Join the other processes; must be called before JAX uses a device.

    Raises:
      ConfigError: the arguments contradict each other, or there is no such cluster.
    """
    is_explicit = _check_explicit(spec)
    cluster = "explicit addresses" if is_explicit else _detect_cluster()
    if spec.mode == "off" or not cluster:
        if spec.mode == "on":
            raise ConfigError(
                "--distributed=on needs a cluster that JAX detects, and there is none. "
                "Pass --coordinator, --num_processes and --process_id."
            )
        return
    # JAX's preemption service would take SIGTERM for itself. train/guard.py handles
    # SIGTERM and Ctrl-C in every phase of a run.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=spec.coordinator,
            num_processes=spec.num_processes,
            process_id=spec.process_id,
            local_device_ids=_local_device_ids(),
            initialization_timeout=spec.start_timeout,
            heartbeat_timeout_seconds=spec.peer_timeout,
        )
    except (ValueError, RuntimeError) as e:
        raise ConfigError(
            f"The processes cannot connect to each other ({cluster}): {_first_line(e)}. "
            "Check the coordinator's address and that all processes were started."
        ) from e
    log.info("joined as process %d of %d (%s)", index(), count(), cluster)


def _check_explicit(spec: ClusterSpec) -> bool:
    """Return whether the addresses are given explicitly; they must be complete."""
    flags = {
        "--coordinator": spec.coordinator,
        "--num_processes": spec.num_processes,
        "--process_id": spec.process_id,
    }
    present = [name for name, value in flags.items() if value is not None]
    if not present:
        return False
    if len(present) < len(flags):
        raise ConfigError(
            "--coordinator, --num_processes and --process_id must be given together; got "
            f"only {', '.join(present)}. Pass all three or none."
        )
    if not 0 <= (spec.process_id or 0) < (spec.num_processes or 0):
        raise ConfigError(
            f"--process_id must be at least 0 and less than --num_processes; got "
            f"{spec.process_id} of {spec.num_processes}."
        )
    return True


def _detect_cluster() -> str:
    """Return the name of the cluster of several processes that JAX detects, or ""."""
    clusters = internal_module("clusters", "ClusterEnv")
    for kind in clusters.ClusterEnv._cluster_types:
        if not kind.opt_in_only_method and kind.is_env_present():
            return kind.name
    return ""


def _local_device_ids() -> list[int] | None:
    """Return all GPUs of a SLURM node that runs one task: JAX would take only one."""
    num_tasks, num_gpus = (
        os.environ.get(f"SLURM_{name}", "")
        for name in ("NTASKS_PER_NODE", "GPUS_ON_NODE")
    )
    is_alone = num_tasks == "1" and num_gpus.isdigit()
    return list(range(int(num_gpus))) if is_alone else None


def _state() -> Any:
    # The client of the coordination service has no public name; Orbax also takes it here.
    return internal_module("distributed", "global_state").global_state


def index() -> int:
    """Return the index of this process; process 0 alone writes shared files."""
    return _state().process_id


def count() -> int:
    """Return the number of processes of the run."""
    return _state().num_processes


def is_first() -> bool:
    """Return whether this is process 0."""
    return index() == 0


def check_devices(required: str) -> None:
    """Check the devices of all processes against `required`: "gpu:8", "tpu" or ":8".

    Raises:
      ConfigError: JAX found other devices, such as a CPU because an accelerator failed to
        start.
    """
    platform, _, number = required.partition(":")
    if number and not number.isdigit():
        raise ConfigError(
            f"--devices must be platform:count, such as gpu:8; got {required!r}."
        )
    try:
        devices = jax.devices()
    except RuntimeError as e:
        raise ConfigError(
            f"--devices={required} needs a platform that JAX can start: "
            f"{_first_line(e)}. Check the driver and JAX_PLATFORMS."
        ) from e
    actual = devices[0].platform
    if platform not in ("", actual) or number and int(number) != len(devices):
        raise ConfigError(
            f"--devices={required} must match the devices of the run; JAX finds "
            f"{actual}:{len(devices)} over {count()} processes. Check the driver, "
            "JAX_PLATFORMS and the nodes of the job."
        )


def _client() -> Any:
    return _state().client


def _unique_key(name: str) -> str:
    """Return a key for the n-th use of `name`, the same on every process."""
    _num_uses[name] += 1
    return f"ul/{name}/{_num_uses[name]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _missing_processes(error: Exception) -> str:
    """Return the processes that a barrier's error lists, one per line, as "1, 3"."""
    _, _, listing = str(error).partition("timed out task names:")
    names = re.findall(r"^(?:.*task:)?(\d+)$", listing, re.MULTILINE)
    return ", ".join(sorted(set(names), key=int)) or "unknown"


def barrier(name: str, seconds: float) -> None:
    """Wait until all processes have reached this barrier.

    Raises:
      Stalled: a process did not arrive within `seconds`; the message names it.
    """
    if count() > 1:
        _wait(name, _unique_key(name), seconds)


def _wait(name: str, key: str, seconds: float) -> None:
    try:
        _client().wait_at_barrier(key, int(1000 * seconds))
    except Exception as e:  # jaxlib raises the same class for every failure
        if "DEADLINE" not in str(e).upper():
            raise Stalled(
                f"Barrier {name!r} failed: {_first_line(e)}. Check the logs of the other "
                "processes and run the same command again."
            ) from e
        raise Stalled(
            f"Barrier {name!r} needs all processes within {seconds:g} s; process "
            f"{_missing_processes(e)} did not arrive. Check its log and run the same "
            "command again."
        ) from e


def all_gather(name: str, text: str, seconds: float) -> list[str]:
    """Return the `text` of every process, in the order of the processes.

    Raises:
      Stalled: as `barrier`.
    """
    if count() == 1:
        return [text]
    key = _unique_key(name)
    _client().key_value_set(f"{key}/{index()}", text)
    _wait(name, f"{key}/all", seconds)
    texts = dict(_client().key_value_dir_get(f"{key}/"))
    return [texts[f"{key}/{i}"] for i in range(count())]


def run_on_all(name: str, fn: Callable[[], T], seconds: float) -> T:
    """Call `fn()` on every process and return its result if it succeeds on all of them.

    Raises:
      UserError: on every process, the error of the first process where `fn` failed.
      Stalled: as `barrier`.
    """
    failure, result = None, None
    try:
        result = fn()
    except UserError as e:
        failure = e
    if count() == 1 and failure:
        raise failure
    message = f"{type(failure).__name__} {failure}" if failure else ""
    for i, text in enumerate(all_gather(name, message, seconds)):
        if text:
            kind, _, line = text.partition(" ")
            raise getattr(errors, kind)(
                line if i == index() else f"process {i}: {line}"
            )
    return result  # type: ignore[return-value]


def run_on_first(name: str, fn: Callable[[], Any], seconds: float) -> Any:
    """Call `fn()` on process 0 and return its result, which is JSON, on every process.

    Raises:
      UserError, Stalled: as `run_on_all`.
    """
    result = run_on_all(name, lambda: fn() if is_first() else None, seconds)
    return json.loads(all_gather(name, json.dumps(result), seconds)[0])


def publish(topic: str, text: str) -> None:
    """Publish `text` under a topic, in place of this process's last one."""
    if count() > 1:
        key = f"ul/{topic}/{index()}"
        try:
            _client().key_value_set(key, text, allow_overwrite=True)
        except Exception:  # The service is gone, so no process is left to read it.
            pass


def read_peers(topic: str) -> dict[int, str]:
    """Return the texts that the other processes published under a topic."""
    if count() == 1:
        return {}
    try:
        entries = _client().key_value_dir_get(f"ul/{topic}/")
    # Nothing is published yet; or the service is gone, and JAX will end this process.
    except Exception:
        return {}
    by_process = {int(key.rsplit("/", 1)[1]): text for key, text in entries}
    return {i: text for i, text in by_process.items() if i != index()}


def hard_exit(
    code: int, reason: str = "", seconds: int = EXIT_BARRIER_SECONDS
) -> NoReturn:
    """Exit with `code` without JAX's shutdown, and tell the other processes why.

    JAX's own exit would wait minutes for processes that are stuck in a collective.
    """
    if reason:
        publish("failed", f"{code} {reason}")
    try:
        if count() > 1:
            _client().wait_at_barrier("ul/leave", 1000 * seconds)
            if is_first():
                time.sleep(LEAVE_LAST_SECONDS)
    except Exception:  # The others are stuck or gone; the exit code reports enough.
        pass
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_after_error(code: int, reason: str) -> NoReturn:
    """Exit with `code` after an error, and tell processes that wait for this one why.

    After Preempted the other processes are exiting as well, so they get more time and no
    reason.
    """
    if count() > 1 and code == Preempted.code:
        hard_exit(code, seconds=PREEMPTED_EXIT_SECONDS)
    if count() > 1:
        hard_exit(code, reason)
    # The threads of a save that failed wait ten minutes for each other, and Python for them.
    others = set(threading.enumerate()) - {threading.current_thread()}
    if not all(thread.daemon for thread in others):
        hard_exit(code)
    sys.exit(code)


def is_peer_failure(error: Exception) -> bool:
    """Return whether a collective or a barrier failed, whatever the error's class.

    A value read from a device raises ValueError then, as a full disk also does.
    """
    message = str(error).lower()
    return count() > 1 and any(word in message for word in COLLECTIVE_WORDS)


def peer_lost_error(error: Exception) -> PeerLost:
    """Return the error to raise after a collective failed with `error`."""
    # If the other process published a reason, the guard ends this process meanwhile.
    time.sleep(EXIT_BARRIER_SECONDS)
    return PeerLost(
        f"Another process of the run ended unexpectedly ({_first_line(error)}). "
        "Run the same command again."
    )


@contextlib.contextmanager
def translate_jax_errors() -> Iterator[None]:
    """Translate JAX's errors for a full device or a lost process into one line.

    Raises:
      OutOfMemory, PeerLost: instead of jax.errors.JaxRuntimeError.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if "out of memory" in str(e).lower():
            raise OutOfMemory(
                f"A device is out of memory ({_first_line(e)}). Lower batch_size, "
                "raise accumulate or mesh.fsdp, or set the networks' remat to 'full'."
            ) from e
        if count() == 1:
            raise
        raise peer_lost_error(e) from e
