"""Flags of the commands that many processes run together."""

import logging
import os

from absl import flags

from ul.core import processes

_MODE = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "Whether to join other processes: auto joins if JAX detects a cluster or the next three "
    "flags are given, on always joins, off never does.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Address host:port of process 0. Give it with --num_processes and --process_id where "
    "JAX cannot detect the cluster.",
)
_COUNT = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
_INDEX = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0 to --num_processes minus 1."
)
_DEVICES = flags.DEFINE_string(
    "devices",
    None,
    "Devices that all processes together must have, as platform:count: gpu:8, tpu or :8. "
    "The command refuses to start on any others.",
)
_START = flags.DEFINE_integer(
    "start_timeout", 300, "Seconds to wait until all processes have joined.", 1
)
_PEER = flags.DEFINE_integer(
    "peer_timeout",
    100,
    "Seconds without a sign of life after which a process counts as lost.",
    5,
)


def join() -> None:
    """Join the other processes of the run and check the devices.

    Raises:
      ConfigError: the flags contradict each other, or do not fit the cluster or the devices.
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


def flags_to_pass_on() -> list[str]:
    """Return the cluster flags of this command line, for the commands that it starts."""
    every = (_MODE, _COORDINATOR, _COUNT, _INDEX, _DEVICES, _START, _PEER)
    return [f"--{flag.name}={flag.value}" for flag in every if flag.present]


def process_index() -> int:
    """Return this process's index before it has joined: --process_id or SLURM's."""
    if _INDEX.value is not None:
        return _INDEX.value
    return int(os.environ.get("SLURM_PROCID", "0"))
