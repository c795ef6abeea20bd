"""Train a stage; run the same command again to resume.

    python -m launch.train --config experiments/digits.py:stage1 --workdir runs/s1
    python -m launch.train --config experiments/digits.py:stage2 --workdir runs/s2 \\
        --config.stage1.workdir=runs/s1
"""

from absl import flags

from launch import cli
from ul import session
from ul.core.errors import ConfigError

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")
_PROFILE = flags.DEFINE_string("profile_steps", "0:0", "Trace the steps first:last.")


def main() -> None:
    parsed, workdir = _CONFIG(), cli.required(_WORKDIR)
    first, _, last = _PROFILE.value.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ConfigError(
            f"--profile_steps is {_PROFILE.value!r}, not first:last as 10:13"
        )
    session.train(parsed, workdir, profile=(int(first), int(last)))


if __name__ == "__main__":
    cli.run(main)
