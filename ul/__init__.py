"""Unified Latents in JAX.

import ul
ae = ul.load_autoencoder("runs/s1")
z = ae.encode(images)            # uint8 [N, H, W, C] -> z_clean [N, h, w, c]
images = ae.decode(z)
images = ul.load_generator("runs/s2").sample([3, 1, 4])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ul.inference.api import (
        Autoencoder,
        Generator,
        load_autoencoder,
        load_generator,
    )

__all__ = ["Autoencoder", "Generator", "load_autoencoder", "load_generator"]


def __getattr__(name: str):
    """Import `ul.inference.api` when it is first asked for: `import ul` alone stays light."""
    if name in __all__:
        from ul.inference import api

        return getattr(api, name)
    raise AttributeError(f"module 'ul' has no attribute {name!r}")
