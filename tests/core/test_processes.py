"""Processes end, whatever else is running in them."""

import os
import subprocess
import sys

from tests.lib.commands import ROOT
from ul.core.errors import StorageError

CODE = """
import threading
from launch.lib import cli
from ul.core.errors import StorageError

def main():
    threading.Thread(target=threading.Event().wait, args=(600,)).start()
    raise StorageError("the disk is full")

cli.run(main)
"""


def test_an_error_ends_the_process_although_a_thread_waits():
    """As Orbax's threads do after a save that failed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == StorageError.code
    assert done.stderr == "StorageError: the disk is full\n"
