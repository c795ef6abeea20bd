"""Checks of a job against the place, before it is submitted."""

import sys

from launch.lib.jobs import Job
from launch.lib.place import Place
from ul.config import RunConfig, TrainConfig
from ul.core import extras
from ul.core.errors import ConfigError
from ul.runs import assemble


def check(job: Job, place: Place, config: RunConfig, devices: str | None) -> None:
    """Check the mesh, the batch and the storage of a job against the place.

    devices: the flag --devices, as platform:count.

    Raises:
      ConfigError: training would refuse to start there.
    """
    count = place.num_devices
    requested = (devices or "").partition(":")[2]
    if count and requested.isdecimal() and int(requested) != count:
        raise ConfigError(
            f"--devices must name the {count} devices that the other flags ask for; got "
            f"{devices}."
        )
    count = count or (int(requested) if requested.isdecimal() else 0)
    if count and isinstance(config, TrainConfig):
        assemble.check_fits(config, count)
    # Images and TPU VMs install the extra themselves; another Python cannot be requested here.
    if job.python == sys.executable and job.workdir.startswith("gs://"):
        extras.require("gcsfs", f"The workdir {job.workdir}", "gcs", "gcsfs")
