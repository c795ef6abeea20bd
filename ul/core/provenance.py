"""The versions of the code and of the packages that produced a result."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from ul import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def code_version() -> str:
    """Return the git commit of the code; outside a clone, the version of the package.

    A `+` at the end marks uncommitted changes.
    """
    # An installed package may lie in an environment inside another project's repository.
    if not (Path(__file__).parents[2] / ".git").exists():
        return __version__
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    packages = {p: metadata.version(p) for p in PACKAGES}
    return packages | {"python": platform.python_version()}
