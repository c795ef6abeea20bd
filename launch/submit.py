"""Submit the train command to this machine, SLURM, GKE or Cloud TPU VMs.

    python -m ul submit local --processes 2 --config digits:stage1 \\
        --workdir runs/s1
    python -m ul submit slurm --nodes 2 --tasks_per_node 8 --gpus_per_node 8 \\
        --config imagenet512:stage1 --config.data.source.path=/shared/imagenet512 \\
        --workdir /shared/s1 --dry-run

The config is validated before anything is submitted, and its mesh and batch are compared
with the devices of the place. See launch/README.md.
"""

import functools
import re
import sys
from pathlib import Path

from absl import flags

from launch.lib import cli, job_checks, jobs, places, submit_flags
from launch.lib.place import Place, submit_jobs
from ul.core.errors import ConfigError
from ul.stages import kinds

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory or bucket of the run, which is created or resumed. Required.",
)
_DEVICES = flags.DEFINE_string(
    "devices",
    None,
    "Devices that all processes together must have, for example gpu:16; training refuses "
    "to start on any others.",
)
_ATTEMPTS = submit_flags.define_max_attempts(5, "", minimum=1)
_NAME = submit_flags.define_job_name("the config")
_PYTHON = submit_flags.define_python()
_DRY_RUN = submit_flags.define_dry_run()
places.define_flags(*places.PLACES)


def _job(place: Place) -> jobs.Job:
    # An invalid config is refused here, before it reaches the place.
    kinds.check_required(_CONFIG())
    config = flags.FLAGS["config"].serialize().partition("=")[2]
    stem = re.sub("[^a-z0-9]+", "-", Path(config.replace(".py", "")).name.lower())
    name = _NAME.value or stem.strip("-")
    if not re.fullmatch("[a-z][-a-z0-9]{0,38}[a-z0-9]", name):  # Kubernetes's rule
        raise ConfigError(
            "--name must be 2 to 40 characters of a-z, 0-9 and -, begin with a letter and "
            f"not end with -; got {name!r}."
        )
    devices = job_checks.required_devices(place, _DEVICES.value)
    return jobs.Job(
        name=name,
        config=config,
        workdir=cli.required(_WORKDIR),
        overrides=jobs.config_overrides(sys.argv[1:]),
        options=(*devices, f"--max_attempts={_ATTEMPTS.value}"),
        max_attempts=_ATTEMPTS.value,
        python=_PYTHON.value or place.PYTHON,
    )


def main(name: str) -> None:
    """Submit the job to the place of this name."""
    place = places.place_from_flags(name)
    job = _job(place)
    job_checks.check(job, place, [_CONFIG()], _DEVICES.value)
    sys.exit(submit_jobs(place, [job], dry_run=_DRY_RUN.value))


if __name__ == "__main__":
    mains = {name: functools.partial(main, name) for name in places.PLACES}
    groups = places.help_groups(*places.PLACES)
    cli.run(mains, groups=groups, exit_code_table=True)
