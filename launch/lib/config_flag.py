"""The flag --config: a config file, its overrides, and changes of a section's `kind`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch.lib import arguments, mistakes
from launch.lib.config_kinds import KindParser
from ul.config import RunConfig, TrainConfig, to_dict
from ul.core.errors import ConfigError
from ul.stages import registry

# The flag belongs to the command that calls define_config, not to this module.
flags.disclaim_key_flags()


def define_config(
    accepts: type[RunConfig] = TrainConfig,
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
) -> Callable[[], Any]:
    """Define --config; return a function that reads, completes and validates it.

    accepts: a base class of the configs that the command can use. argv: the command line
    on which the overrides stand, by default that of this process.
    """
    argv = sys.argv if argv is None else argv
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        arguments.CONFIG_HELP,
        flag_values=flag_values,
        sys_argv=list(argv),
    )
    flag = flag_values["config"]
    flag.parser = KindParser(flag.parser, argv)

    def read() -> Any:
        if holder.value is None:
            raise ConfigError(
                "--config is required, but it is not set. Pass NAME:VARIANT"
                " (python -m ul lists the names) or FILE.py:VARIANT."
            )
        try:
            # ml_collections raises the error of a broken file only when the config is
            # accessed.
            config = to_dict(holder.value)
        except OSError as e:
            raise ConfigError(
                f"--config cannot be read: {mistakes.last_line(e)}"
            ) from e
        return registry.parse(config, accepts)

    return read
