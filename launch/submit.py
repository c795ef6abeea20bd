"""The train command, in the place where it is to run. See launch/README.md.

    python -m launch.submit local --processes 2 --config experiments/digits.py:stage1 \\
        --workdir runs/s1
    python -m launch.submit slurm --nodes 2 --tasks_per_node 8 --gpus_per_node 8 \\
        --config ... --workdir ... --config.seed=1 --dry-run

The config is validated before anything is submitted; --dry-run prints what would be.
"""

import functools
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

from absl import flags

from launch.lib import cli, jobs, places
from ul.core.errors import ConfigError

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")
_DEVICES = flags.DEFINE_string("devices", None, "What must be there, as gpu:16.")
_ATTEMPTS = flags.DEFINE_integer(
    "max_attempts", 5, "Stop when so many starts in a row saved nothing.", lower_bound=1
)
_NAME = flags.DEFINE_string("name", None, "The job's name; the config's if unset.")
_PYTHON = flags.DEFINE_string("python", None, "Python in that place.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be submitted.")
flags.DEFINE_alias("dry-run", "dry_run")
places.define_flags()


def _job(module: ModuleType) -> jobs.Job:
    _CONFIG()  # refuses now what training would refuse there
    config = flags.FLAGS["config"].serialize().partition("=")[2]
    plain = re.sub("[^a-z0-9]+", "-", Path(config.replace(".py", "")).name.lower())
    name = _NAME.value or plain.strip("-")
    if not re.fullmatch("[a-z][-a-z0-9]{0,38}[a-z0-9]", name):  # as Kubernetes wants
        raise ConfigError(f"--name is {name!r}; use at most 40 of a-z, 0-9 and -")
    options = [f"--devices={_DEVICES.value}"] if _DEVICES.value else []
    return jobs.Job(
        name=name,
        config=config,
        workdir=cli.required(_WORKDIR),
        overrides=jobs.config_overrides(sys.argv[1:]),
        options=(*options, f"--max_attempts={_ATTEMPTS.value}"),
        max_attempts=_ATTEMPTS.value,
        python=_PYTHON.value or module.PYTHON,
    )


def main(name: str) -> None:
    module = places.PLACES[name]
    job, place = _job(module), places.place_from_flags(name)
    files = place.render(job)
    if not _DRY_RUN.value:
        try:
            sys.exit(place.submit(job))
        except FileNotFoundError as e:
            raise ConfigError(f"{e.filename} is not installed on this machine") from e
    for file, text in files.items():
        print(f"==> {file} <==\n{text}" if len(files) > 1 else text, end="")
    print(f"would run: {shlex.join(module.COMMAND)}", file=sys.stderr)


if __name__ == "__main__":
    cli.run({name: functools.partial(main, name) for name in places.PLACES})
