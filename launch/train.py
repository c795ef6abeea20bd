"""Train a stage; run the same command again to resume.

    python -m launch.train --config experiments/digits.py:stage1 --workdir runs/s1
    python -m launch.train --config experiments/digits.py:stage2 --workdir runs/s2 \\
        --config.stage1.workdir=runs/s1

On many machines every process runs this same command (launch/README.md).
"""

from absl import flags

from launch.lib import cli, cluster
from ul.core.errors import ConfigError
from ul.runs import session

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")
_PROFILE = flags.DEFINE_string("profile_steps", "0:0", "Trace the steps first:last.")
_ATTEMPTS = flags.DEFINE_integer(
    "max_attempts",
    0,
    "Stop after so many starts without a new checkpoint; 0: never.",
    0,
)
_ALLOW = flags.DEFINE_bool(
    "allow_changes", False, "Resume though the config or the data are not the same."
)


def main() -> None:
    parsed, workdir = _CONFIG(), cli.required(_WORKDIR)
    first, _, last = _PROFILE.value.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ConfigError(
            f"--profile_steps is {_PROFILE.value!r}, not first:last as 10:13"
        )
    cluster.join()
    session.train(
        parsed,
        workdir,
        profile=(int(first), int(last)),
        max_attempts=_ATTEMPTS.value,
        allow_changes=_ALLOW.value,
    )


if __name__ == "__main__":
    cli.run(main)
