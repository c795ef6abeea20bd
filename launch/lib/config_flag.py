"""The flag --config: a config file, its overrides, and changes of a section's `kind`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict, config_flags

from launch.lib import arguments, mistakes
from ul.config import REQUIRED, RunConfig, TrainConfig, to_dict
from ul.core.errors import ConfigError
from ul.stages import kinds, registry

# The flag belongs to the command that calls define_config, not to this module.
flags.disclaim_key_flags()


class _KindParser(flags.ArgumentParser):
    """Reads a config file; `--config.SECTION.kind=K` starts from the defaults of K.

    Overrides are parsed against the config that this returns, so the settings of the new
    kind must be in it before ml_collections looks for them.
    """

    def __init__(self, parser: flags.ArgumentParser, argv: Sequence[str]):
        self._parser, self._argv = parser, argv

    def parse(self, argument: Any) -> ml_collections.ConfigDict:
        """Return the config of a file with the kinds of the command line."""
        config = self._parser.parse(argument)
        requested = _requested_kinds(self._argv)
        for path in kinds.SECTIONS:
            _complete(config, path, requested.get(path))
        return config

    def flag_type(self) -> str:
        """Describe the flag's type in help."""
        return "config file"


def _requested_kinds(argv: Sequence[str]) -> dict[str, str]:
    """Return the kinds on a command line by the path of their section."""
    requested = {}
    for i, word in enumerate(argv):
        key, equals, value = word.lstrip("-").partition("=")
        path = key.removeprefix("config.").removesuffix(".kind")
        if key == f"config.{path}.kind":
            requested[path] = value if equals else "".join(argv[i + 1 : i + 2])
    return requested


def _complete(config: ml_collections.ConfigDict, path: str, kind: str | None) -> None:
    """Fill in the defaults of the section at `path`, of another kind if one is given."""
    parent, (*outer, name) = config, path.split(".")
    for part in outer:
        parent = parent.get(part, {})
    if parent.get(name) is None:
        return
    section = to_dict(parent[name])
    choices, kind = kinds.SECTIONS[path], kind or str(section.get("kind"))
    if kind == section.get("kind"):
        completed = choices.complete(path, section)
    else:
        completed = choices.switch(path, section, kind)
    types = choices.types(kind)
    with config.unlocked():
        for key in [key for key in section if key not in completed]:
            del parent[name][key]
        for key, value in completed.items():
            if value is REQUIRED:
                parent[name][key] = config_dict.placeholder(types[key])
            elif key not in section or value != section[key]:
                parent[name][key] = value


def define_config(
    accepts: type[RunConfig] = TrainConfig,
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] = sys.argv,
) -> Callable[[], Any]:
    """Define --config; return a function that reads, completes and validates it.

    accepts: a base class of the configs that the command can use. argv: the command line
    on which the overrides stand.
    """
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        arguments.CONFIG_HELP,
        flag_values=flag_values,
        sys_argv=list(argv),
    )
    flag = flag_values["config"]
    flag.parser = _KindParser(flag.parser, argv)

    def read() -> Any:
        if holder.value is None:
            raise ConfigError(
                "--config is required, but it is not set. Pass experiments/NAME.py:VARIANT."
            )
        try:
            # A file that failed to load says so only when its config is used.
            config = to_dict(holder.value)
        except OSError as e:
            raise ConfigError(
                f"--config cannot be read: {mistakes.last_line(e)}"
            ) from e
        return registry.parse(config, accepts)

    return read
