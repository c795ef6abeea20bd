"""Change the `kind` of a config's section on the command line."""

from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict

from launch.lib import shipped
from ul.config import REQUIRED, to_dict
from ul.stages import kinds


class KindParser(flags.ArgumentParser):
    """Reads a config file; `--config.SECTION.kind=K` starts from the defaults of K.

    Overrides are parsed against the config that this returns, so the settings of the new
    kind must be in it before ml_collections looks for them.
    """

    def __init__(self, parser: flags.ArgumentParser, argv: Sequence[str]):
        self._parser, self._argv = parser, argv

    def parse(self, argument: Any) -> ml_collections.ConfigDict:
        """Return the config of a file with the kinds of the command line."""
        if isinstance(argument, str):
            argument = shipped.resolve("--config", argument, "get_config")
        config = self._parser.parse(argument)
        if not isinstance(config, ml_collections.ConfigDict):
            return config  # It raises the error of a broken file when it is accessed.
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
