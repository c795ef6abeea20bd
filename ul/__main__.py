"""Run a command: `python -m ul COMMAND ...`, which a wheel also installs as `unified-latents`.

The commands are the package `launch`. In a clone it lies beside `ul`; a wheel carries it,
with the shipped experiments, in the folder `ul/_bundle`, so that an installation adds no
other name than `ul` to the user's environment.
"""

import runpy
import sys
from pathlib import Path


def root() -> Path:
    """Return the folder that contains the packages `launch` and `experiments`."""
    bundle = Path(__file__).with_name("_bundle")
    return bundle if bundle.is_dir() else Path(__file__).parents[1]


def main() -> None:
    """Run the command on the command line, and exit with its code."""
    # First, because the user's own folder may contain a package of the same name.
    sys.path.insert(0, str(root()))
    runpy.run_module("launch", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
