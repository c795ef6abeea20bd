"""Unified Latents in JAX.

import ul
autoencoder = ul.load_autoencoder("runs/s1")
z = autoencoder.encode(images)           # uint8 [N, H, W, C] -> z_clean [N, h, w, c]
images = autoencoder.decode(z)
images = ul.load_generator("runs/s2").sample([3, 1, 4])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ul.inference.api import (
        AnyClass,
        Autoencoder,
        Generator,
        load_autoencoder,
        load_generator,
    )

# The one place of the version: setup.py and code_version() read it here.
__version__ = "0.1.0"
__all__ = [
    "AnyClass",
    "Autoencoder",
    "Generator",
    "__version__",
    "load_autoencoder",
    "load_generator",
]


def __getattr__(name: str):
    """Import the loaders when they are first used, so that `import ul` stays fast."""
    if name in __all__:
        from ul.inference import api

        return getattr(api, name)
    raise AttributeError(f"module 'ul' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
