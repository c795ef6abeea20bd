"""The places to run, and a flag for every field of theirs.

A place is a module: `Place`, a frozen dataclass of its settings with `render(job)`, the
files by name, and `submit(job)`, an exit code; `COMMAND`, what `submit` runs on the
first of them; `PYTHON`, the interpreter there.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

from absl import flags

from launch import gke, local, slurm, tpu_vm
from ul.core.errors import ConfigError

PLACES: dict[str, ModuleType] = {
    "local": local,
    "slurm": slurm,
    "gke": gke,
    "tpu_vm": tpu_vm,
}
_FIELDS = {
    name: {f.name: f for f in dataclasses.fields(module.Place)}
    for name, module in PLACES.items()
}
_DEFINE: dict[Any, Callable] = {
    int: flags.DEFINE_integer,
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
    tuple[str, ...]: flags.DEFINE_multi_string,
}


def _owners(flag: str) -> list[str]:
    return [name for name, fields in _FIELDS.items() if flag in fields]


def define(*places: str) -> None:
    """The flags of these places, or of all; those of one name share a flag."""
    chosen = places or tuple(PLACES)
    for flag in dict.fromkeys(f for name in chosen for f in _FIELDS[name]):
        owners = [name for name in _owners(flag) if name in chosen]
        fields = {name: _FIELDS[name][flag] for name in owners}
        text = " ".join(f"{n}: {f.metadata['help']}" for n, f in fields.items())
        _DEFINE[next(iter(fields.values())).type](flag, None, text)


def read(name: str) -> Any:
    """The place as the command line has it.

    Raises:
      ConfigError: a flag of another place, or settings that do not fit together.
    """
    given = {}
    for flag in set().union(*_FIELDS.values()):
        value = flags.FLAGS[flag].value if flag in flags.FLAGS else None
        if value is None:
            continue
        if flag not in _FIELDS[name]:
            owners = ", ".join(_owners(flag))
            raise ConfigError(f"--{flag} is a flag of {owners}, not of {name}")
        given[flag] = tuple(value) if isinstance(value, list) else value
    return PLACES[name].Place(**given)
