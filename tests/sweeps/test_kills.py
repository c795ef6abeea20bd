"""The real command, killed in the middle of stand-ins for what it starts."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.lib.commands import ROOT, wait_for
from tests.sweeps.conftest import STAGE1

DRIVER = """
import runpy, sys
from ul.sweeps import runner
runner.POLL_SECONDS = runner.IN_USE_SECONDS = 0.02
sys.executable = {executable!r}
sys.argv = ["launch.sweep", *{words!r}]
runpy.run_module("launch.sweep", run_name="__main__")
"""
SWEEP = f"""
from experiments import sweeps

def get_sweep():
    return sweeps.trials(sweeps.grid("loss.factor", (1.5, 2.0)), stage1={STAGE1!r})
"""


@pytest.fixture
def sweep(commands, tmp_path):
    """Starts the command in a process group of its own; what it says is in a file."""
    (tmp_path / "sweep.py").write_text(SWEEP)
    words = [str(tmp_path / "sweep.py"), f"--out={tmp_path / 'out'}"]
    driver = DRIVER.format(executable=commands.executable, words=words)
    python, started = os.path.realpath("/proc/self/exe"), []

    def start():
        commands.ready.unlink(missing_ok=True)
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(
                [python, "-c", driver],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def wait_until(path, process):
    for _ in range(6000):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    assert path.exists()


def test_what_was_killed_goes_on_and_what_lives_is_waited_for(
    sweep, commands, tmp_path
):
    said, out = tmp_path / "said", tmp_path / "out"
    commands.end("factor1.5", 0, "wait", "wait", "wait", "wait")

    process = sweep()
    wait_until(commands.ready, process)
    os.killpg(process.pid, signal.SIGKILL)  # the command that waits as well
    process.wait()

    process = sweep()
    wait_until(commands.ready, process)
    process.kill()  # alone
    process.wait()
    survivors = process.pid

    process = sweep()
    wait_for(said, "in use elsewhere", process)
    before = [call for call in commands.calls() if "factor1.5" in call[1]]
    assert [main for main, _ in before] == [
        "launch.train",
        "launch.evaluate",
        "launch.train",
    ]
    os.killpg(survivors, signal.SIGTERM)
    wait_until(commands.ready, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75, said.read_text()
    assert "Preempted: interrupted; run the same command again" in said.read_text()

    commands.end("factor1.5")
    assert sweep().wait(timeout=300) == 0, said.read_text()
    assert "2 of 2 done, 0 failed" in said.read_text()
    assert {f.parent.name for f in out.glob("*/DONE.json")} == {"factor1.5", "factor2"}
