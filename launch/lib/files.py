"""What a Python file that the user names says: configs and sweeps."""

import importlib.util
import traceback
from pathlib import Path
from typing import Any

from ul.core.errors import ConfigError


def call(flag: str, name: str, function: str) -> Any:
    """`function(arg)` of the file in `file.py:arg`; without an arg, `function()`.

    Raises:
      ConfigError: there is no such file, it has no such function, or that fails.
    """
    path, _, arg = name.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"{flag} {name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)(*[arg] if arg else [])
    except Exception as e:  # whatever a user's file raises
        line = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{line.filename}:{line.lineno}"
        raise ConfigError(f"{flag} {name}: {e} ({type(e).__name__}, {where})") from e
