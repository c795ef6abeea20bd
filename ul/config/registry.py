"""From a section with a `kind` to the object that it describes."""

from typing import Any

from ul.config.validation import construct
from ul.core.errors import ConfigError


def plain(config) -> dict:
    """An ml_collections ConfigDict, or JSON, as nested dicts with tuples."""
    config = config.to_dict() if hasattr(config, "to_dict") else config

    def convert(value):
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return tuple(map(convert, value)) if isinstance(value, list | tuple) else value

    return convert(config)


def of_kind(where: str, kinds: dict, section: dict, **given) -> Any:
    """The object that a section with a `kind` describes."""
    settings = dict(section)
    kind = settings.pop("kind", None)
    if kind not in kinds:
        raise ConfigError(f"{where}.kind is {kind!r}; known are {sorted(kinds)}")
    return construct(where, kinds[kind], settings, **given)
