"""Checks of a job against the place, before it is submitted."""

import re
import sys
from collections.abc import Iterable

from launch.lib.jobs import Job
from launch.lib.place import Place
from ul.config import RunConfig, TrainConfig
from ul.core import extras
from ul.core.errors import ConfigError
from ul.runs import assemble


def required_devices(place: Place, requested: str | None) -> list[str]:
    """Return the flag --devices, so that training cannot fall back to CPUs in the place."""
    devices = requested or re.sub("^:.*", "", place.devices)
    return [f"--devices={devices}"] if devices else []


def check(
    job: Job, place: Place, configs: Iterable[RunConfig], devices: str | None
) -> None:
    """Check the meshes, the batches and the storage of a job against the place.

    devices: the flag --devices, as platform:count.

    Raises:
      ConfigError: training would refuse to start there.
    """
    platform, _, count = place.devices.partition(":")
    requested = re.fullmatch(r"(cpu|gpu|tpu|)(?::([1-9]\d*))?", devices or "")
    if requested is None:
        raise ConfigError(
            f"--devices must be platform:count, such as gpu:16, tpu or :8; got {devices}."
        )
    pairs = ((platform, requested[1]), (count, requested[2]))
    if any(own and other and own != other for own, other in pairs):
        raise ConfigError(
            f"--devices must name the {count} devices that the other flags ask for "
            f"({place.devices}); got {devices}."
        )
    count = count or requested[2]
    for config in configs:
        if count and isinstance(config, TrainConfig):
            slices = getattr(place, "slices", 1)
            assemble.check_fits(config, int(count), slices)
    if "://" in job.workdir and not job.workdir.startswith("gs://"):
        raise ConfigError(
            f"The workdir must be a path on a disk or gs://bucket/path; got {job.workdir}."
        )
    # Images and TPU VMs install the extra themselves, and another Python cannot be asked here.
    if job.python == sys.executable and job.workdir.startswith("gs://"):
        extras.require("gcsfs", f"The workdir {job.workdir}", "gcs", "gcsfs")
