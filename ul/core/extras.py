"""Packages that only some features need. Each extra of setup.py lists those of a feature."""

import importlib
from typing import Any

from ul.core.errors import ConfigError


def install_hint(extra: str, packages: str) -> str:
    """Return how to install the packages of an extra, for an error message.

    Neither command installs a name that this project does not own.
    """
    return (
        f"Install it: pip install '.[{extra}]' in a clone of this project, or "
        f"pip install {packages}"
    )


def require(module: str, needed_by: str, extra: str, packages: str) -> Any:
    """Import and return a module that is not a core dependency.

    needed_by: what needs the module, as the beginning of a sentence. packages: what to
    install with pip, separated by spaces.

    Raises:
      ConfigError: the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise ConfigError(
            f"{needed_by} needs {module.partition('.')[0]}, which cannot be imported "
            f"({e}). {install_hint(extra, packages)}"
        ) from e
