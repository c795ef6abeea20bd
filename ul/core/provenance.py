"""Versions of the code and of the packages behind a result."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def code_version() -> str:
    """Git commit of the code, `+` if it has changes; "unknown" outside a clone."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Of the packages that decide what a run computes."""
    packages = {p: metadata.version(p) for p in PACKAGES}
    return packages | {"python": platform.python_version()}
