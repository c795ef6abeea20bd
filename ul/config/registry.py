"""Sections whose `kind` chooses a constructor: a data source, a network, a schedule."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any

from ul.config.validation import (
    check_section,
    construct,
    constructor_parameters,
)
from ul.core.errors import ConfigError

REQUIRED = inspect.Parameter.empty


def to_dict(config: Any) -> dict[str, Any]:
    """Return an ml_collections ConfigDict, or JSON, as nested dicts with tuples."""
    config = config.to_dict() if hasattr(config, "to_dict") else config

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(map(convert, value))
        return value

    return convert(config)


@dataclasses.dataclass(frozen=True)
class Kinds:
    """The constructors that one section of a config chooses from by its `kind`.

    constructors: by kind. supplied: their arguments that the code passes and a config
    does not have, such as the shape of the images.
    """

    constructors: Mapping[str, Callable[..., Any]]
    supplied: tuple[str, ...] = ()

    def settings(self, path: str, kind: Any) -> dict[str, Any]:
        """Return the settings of a kind with their defaults, or REQUIRED.

        Raises:
          ConfigError: there is no such kind.
        """
        if kind not in self.constructors:
            raise ConfigError(
                f"{path}.kind must be one of {sorted(self.constructors)}; got {kind!r}."
            )
        parameters = constructor_parameters(self.constructors[kind])
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in self.supplied
        }

    def types(self, kind: str) -> dict[str, type]:
        """Return the type of each setting of a kind; `tuple` for sizes of several axes."""
        hints = typing.get_type_hints(self.constructors[kind])
        types = {}
        for name in self.settings("", kind):
            hint = hints.get(name, str)
            if typing.get_origin(hint) in (typing.Union, UnionType):
                hint = typing.get_args(hint)[0]
            types[name] = typing.get_origin(hint) or hint
        return types

    def complete(self, path: str, section: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section with the default of every setting that it leaves out."""
        settings = self.settings(path, section.get("kind"))
        defaults = {k: v for k, v in settings.items() if v is not REQUIRED}
        return {"kind": section.get("kind")} | defaults | dict(section)

    def switch(self, path: str, section: Mapping[str, Any], kind: Any) -> dict:
        """Return the section for another kind, from that kind's defaults.

        Settings without a default keep the section's value where both kinds have them,
        as the ends of a noise schedule; the others are REQUIRED.
        """
        settings = self.settings(path, kind)
        return {"kind": kind} | {
            name: section.get(name, REQUIRED) if default is REQUIRED else default
            for name, default in settings.items()
        }

    def check(self, path: str, section: Mapping[str, Any]) -> None:
        """Check a section without constructing what it describes.

        None marks a setting that the user must still provide, such as a path. Only
        `build` requires it, because a plan reads no data.

        Raises:
          ConfigError: unknown kind, unknown or missing setting, wrong type.
        """
        settings = dict(section)
        kind = settings.pop("kind", None)
        self.settings(path, kind)
        unset = [name for name, value in settings.items() if value is None]
        given = {k: v for k, v in settings.items() if v is not None}
        check_section(path, self.constructors[kind], given, [*self.supplied, *unset])

    def build(self, path: str, section: Mapping[str, Any], **supplied: Any) -> Any:
        """Construct what the section describes.

        Raises:
          ConfigError: unknown kind, unknown or missing setting, wrong type.
        """
        settings = dict(section)
        kind = settings.pop("kind", None)
        self.settings(path, kind)
        return construct(path, self.constructors[kind], settings, **supplied)
