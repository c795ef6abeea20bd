"""The modules of JAX that have no public name."""

import functools
import importlib
from types import ModuleType

import jax

from ul.core.errors import ConfigError

SUPPORTED = "0.10.2 to 0.12"


@functools.cache
def internal_module(name: str, *attributes: str) -> ModuleType:
    """Return the module `jax._src.<name>`. Only this function imports from `jax._src`.

    attributes: the names in the module that the caller uses.

    Raises:
      ConfigError: this version of JAX has no such module, or an attribute is missing.
    """
    try:
        module = importlib.import_module(f"jax._src.{name}")
    except ImportError as e:
        raise _unsupported(f"has no jax._src.{name}") from e
    for attribute in attributes:
        if not hasattr(module, attribute):
            raise _unsupported(f"has no jax._src.{name}.{attribute}")
    return module


def _unsupported(difference: str) -> ConfigError:
    return ConfigError(
        f"This project needs jax {SUPPORTED}; the installed version, {jax.__version__}, "
        f"{difference}. Install a supported one: pip install 'jax==0.10.2'"
    )
