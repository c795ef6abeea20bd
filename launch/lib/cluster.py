"""Flags of a main that many processes run together."""

import logging
import os

from absl import flags

from ul.core import processes

_MODE = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "Join other processes: where JAX detects a cluster or the next three are given; "
    "always; never.",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
_COUNT = flags.DEFINE_integer("num_processes", None, "How many processes.")
_INDEX = flags.DEFINE_integer("process_id", None, "Which of them this one is.")
_DEVICES = flags.DEFINE_string(
    "devices", None, "What must be there over all processes, as gpu:8, tpu or :8."
)
_START = flags.DEFINE_integer(
    "start_timeout", 300, "Seconds to wait for the other processes to join.", 1
)
_PEER = flags.DEFINE_integer(
    "peer_timeout", 100, "Seconds of silence after which a process counts as dead.", 5
)


def join() -> None:
    """Meet the other processes, and see that the devices are those asked for.

    Raises:
      ConfigError: the flags do not fit each other or the place.
    """
    processes.join(
        processes.ClusterSpec(
            mode=_MODE.value,
            coordinator=_COORDINATOR.value,
            num_processes=_COUNT.value,
            process_id=_INDEX.value,
            start_timeout=_START.value,
            peer_timeout=_PEER.value,
        )
    )
    if not processes.is_first():
        logging.getLogger("ul").setLevel(logging.WARNING)
    if _DEVICES.value:
        processes.check_devices(_DEVICES.value)


def given() -> list[str]:
    """What of these flags this command got, for commands that it starts."""
    ours = (_MODE, _COORDINATOR, _COUNT, _INDEX, _DEVICES, _START, _PEER)
    return [f"--{flag.name}={flag.value}" for flag in ours if flag.present]


def index() -> int:
    """Which process this is, before any has met another: as told, or as SLURM says."""
    told = _INDEX.value
    return int(os.environ.get("SLURM_PROCID", "0")) if told is None else told
