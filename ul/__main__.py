"""Run a command: `python -m ul COMMAND ...`, which a wheel also installs as `unified-latents`.

The commands are the package `launch`. In a clone it lies beside `ul`; a wheel carries it,
with the shipped experiments, in the folder `ul/_bundle`, so that an installation adds no
other name than `ul` to the user's environment.
"""

import gc
import os
import runpy
import signal
import sys
from pathlib import Path

PREEMPTED = 75  # the code of Preempted, which would have to be imported


def root() -> Path:
    """Return the folder that contains the packages `launch` and `experiments`."""
    bundle = Path(__file__).with_name("_bundle")
    return bundle if bundle.is_dir() else Path(__file__).parents[1]


def _leave(number, frame) -> None:
    """End a command that is still importing; an exception might be lost in an import."""
    os.write(2, b"Interrupted before the command began. Run the same command again.\n")
    os._exit(PREEMPTED)


def main() -> None:
    """Run the command on the command line, and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)  # until launch.lib.cli.run
    # Tracing allocates millions of long-lived objects. With Python's own threshold, garbage
    # collection takes a tenth of the time to the first step.
    gc.set_threshold(100_000, 20, 100)
    # First, because the user's own folder may contain a package of the same name.
    sys.path.insert(0, str(root()))
    runpy.run_module("launch", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
