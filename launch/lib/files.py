"""Calling a function in a Python file that the user names: a config or a sweep."""

import importlib.util
import traceback
from pathlib import Path
from typing import Any

from launch.lib import shipped
from ul.core.errors import ConfigError


def call_user_function(flag: str, name: str, function: str) -> Any:
    """Call `function(arg)` of `file.py:arg`, or `function()` of `file.py`.

    Without a slash and the ending .py, `name` is that of a shipped file.

    flag: what the user set to `name`, as the subject of error messages.

    Raises:
      ConfigError: the file or the function does not exist, or the function fails.
    """
    path, _, arg = shipped.resolve(flag, name, function).partition(":")
    if not Path(path).is_file():
        raise ConfigError(
            f"{flag} must be a shipped name or a Python file; the file {path} does not "
            "exist."
        )
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)(*[arg] if arg else [])
    except Exception as e:  # a user's file may raise anything
        frame = traceback.extract_tb(e.__traceback__)[-1]
        # The last frame of a syntax error is that of the import machinery.
        place = e if isinstance(e, SyntaxError) else frame
        line = f"{place.filename}:{place.lineno}"
        raise ConfigError(
            f"{flag} {name} failed with {type(e).__name__} at {line}: {e}"
        ) from e
