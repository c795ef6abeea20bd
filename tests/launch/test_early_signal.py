"""The first moments of a command: Ctrl-C while it imports, and rare searches for garbage."""

import signal
import subprocess
import sys
import time

import pytest

from tests.lib.commands import ROOT
from ul.core.errors import Preempted


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_ctrl_c_during_the_imports(delay):
    process = subprocess.Popen(
        [sys.executable, "-m", "ul", "train"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts the commands in its background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    status = f"/proc/{process.pid}/status"
    while not _catches(status, signal.SIGINT):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == Preempted.code
    assert "Traceback" not in text and text.count("\n") == 1


def test_ctrl_c_while_a_finished_command_ends():
    code = """
import atexit, os, signal, sys
from launch.lib import cli
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["finished"]
cli.run(lambda: print("done"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_trace_is_not_searched_for_garbage_all_the_time():
    """Python's own threshold is below 10,000 objects."""
    code = """
import gc, runpy
from ul import __main__
runpy.run_module = lambda *_, **__: print(gc.get_threshold()[0] >= 100_000)
__main__.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr


def _catches(status, number):
    """Return whether a process has a handler of a signal, and has begun `ul.__main__`."""
    with open(status) as file:
        caught = next(line for line in file if line.startswith("SigCgt"))
    if not int(caught.split()[1], 16) >> (number - 1) & 1:
        return False
    with open(status.replace("status", "maps")) as file:
        return "jaxlib" in file.read()
