"""The places where jobs run, and the flags that set their fields."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from launch.gke import GkePlace
from launch.lib.flag_groups import FlagGroup
from launch.lib.flag_help import FlagHelp, describe
from launch.lib.place import Place
from launch.local import LocalPlace
from launch.slurm import SlurmPlace
from launch.tpu_vm import TpuVmPlace
from ul.core.errors import ConfigError

PLACES: dict[str, type[Place]] = {
    "local": LocalPlace,
    "slurm": SlurmPlace,
    "gke": GkePlace,
    "tpu_vm": TpuVmPlace,
}
_FIELDS = {
    name: {field.name: field for field in dataclasses.fields(place)}
    for name, place in PLACES.items()
}
_DEFINE: dict[Any, Callable] = {
    int: flags.DEFINE_integer,
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
    tuple[str, ...]: flags.DEFINE_multi_string,
}


def _places_with(flag: str) -> list[str]:
    return [name for name, fields in _FIELDS.items() if flag in fields]


def define_flags(*places: str) -> None:
    """Define a flag for every field of these places; places share flags of one name."""
    fields = {flag: f for name in places for flag, f in _FIELDS[name].items()}
    for flag, field in fields.items():
        _DEFINE[field.type](flag, None, field.metadata["help"])


def help_groups(*places: str) -> dict[str, FlagGroup]:
    """Return each place's flags with their defaults, for the help page."""
    return {name: _help_group(name) for name in places}


def _help_group(name: str) -> FlagGroup:
    entries: list[FlagHelp] = []
    for flag, field in _FIELDS[name].items():
        entries.append(
            describe(flags.FLAGS[flag], field.default, field.metadata["help"])
        )
    doc = sys.modules[PLACES[name].__module__].__doc__ or ""
    return FlagGroup(f"Flags of {name}", tuple(entries), doc.partition("\n")[0])


def place_from_flags(name: str) -> Place:
    """Return the place with the settings of the command line.

    Raises:
      ConfigError: a flag belongs to another place, or settings contradict each other.
    """
    settings = {}
    for flag in dict.fromkeys(f for fields in _FIELDS.values() for f in fields):
        value = flags.FLAGS[flag].value if flag in flags.FLAGS else None
        if value is None:
            continue
        if flag not in _FIELDS[name]:
            owners = ", ".join(_places_with(flag))
            raise ConfigError(
                f"--{flag} is a flag of {owners}, not of {name}. Remove it."
            )
        settings[flag] = tuple(value) if isinstance(value, list) else value
    return PLACES[name](**settings)
