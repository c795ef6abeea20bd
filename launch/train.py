"""Train one stage; run the same command again to resume.

    python -m ul train --config digits:stage1 --workdir runs/s1
    python -m ul train --config digits:stage2 --workdir runs/s2 \\
        --config.stage1.workdir=runs/s1

In a run of many processes every process runs this same command, see launch/README.md.
"""

import dataclasses
import json

from absl import flags

from launch.lib import cli, cluster, compiled, submit_flags, utilization
from ul.core.errors import ConfigError
from ul.planning import bitrate
from ul.runs import session

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory or bucket of the run, which is created or resumed. Required.",
)
_PROFILE = flags.DEFINE_string(
    "profile_steps",
    "0:0",
    "Record a profiler trace of the steps FIRST:LAST, for example 10:13.",
)
_ATTEMPTS = submit_flags.define_max_attempts(0, "; 0 means never")
_ALLOW = flags.DEFINE_bool(
    "allow_changes",
    False,
    "Resume even if the config or the data differ from those that the run began with.",
)
_PRINT = flags.DEFINE_bool(
    "print_config", False, "Print the complete config as JSON and exit."
)


def main() -> None:
    """Train."""
    config = _CONFIG()
    if _PRINT.value:
        return print(json.dumps(dataclasses.asdict(config), indent=2))
    workdir = cli.required(_WORKDIR)
    first, _, last = _PROFILE.value.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ConfigError(
            f"--profile_steps must be FIRST:LAST, for example 10:13; got {_PROFILE.value}."
        )
    cluster.join()
    session.train(
        config,
        workdir,
        profile=(int(first), int(last)),
        max_attempts=_ATTEMPTS.value,
        allow_changes=_ALLOW.value,
        compiled_programs=compiled.directory(f"{workdir}/compile_cache"),
        predict_rate=bitrate.planned_rate_bpp,
        predict_flops=utilization.step_flops_and_peak,
    )


if __name__ == "__main__":
    cli.run(main, exit_code_table=True)
