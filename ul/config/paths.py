"""Paths in configs: absolute, so that a run means the same files from any directory."""

import os
from collections.abc import Mapping
from typing import Any

from ul.core.errors import ConfigError

# A config has the ones of its stage and of its data source.
PATH_KEYS = (
    "data.source.path",
    "data.source.eval_path",
    "data.source.data_dir",
    "data.source.captions",
    "stage1.workdir",
    "init.workdir",
    "latent_cache",
)
# An empty one is the same as none.
_OPTIONAL = ("data.source.eval_path",)


def make_absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with absolute local paths; `~` becomes the home directory.

    Paths of object stores, such as gs://bucket/run, and unset paths stay as they are.

    Raises:
      ConfigError: a path is empty, as that of an unset variable of a shell.
    """
    changed = dict(config)
    for key in PATH_KEYS:
        *sections, name = key.split(".")
        parent = changed
        for section in sections:
            if not isinstance(parent.get(section), Mapping):
                break
            parent[section] = dict(parent[section])
            parent = parent[section]
        else:
            if isinstance(parent.get(name), str):
                parent[name] = _absolute(key, parent[name])
    return changed


def _absolute(key: str, path: str) -> str:
    if not path.strip() and key not in _OPTIONAL:
        raise ConfigError(
            f"{key} must be a path; it is empty, perhaps because a variable of the shell is "
            f"not set. Pass --config.{key}=PATH."
        )
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))
