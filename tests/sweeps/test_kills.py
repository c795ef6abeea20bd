"""The real `ul sweep`, killed while stand-ins for its commands run."""

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
from ul.sweeps import execution, runner
runner.POLL_SECONDS = execution.RECHECK_SECONDS = 0.02
sys.executable = {executable!r}
sys.argv = ["sweep", *{words!r}]
runpy.run_module("launch.sweep", run_name="__main__")
"""
SWEEP = f"""
from experiments import sweeps

def get_sweep():
    return sweeps.trials(sweeps.grid("loss.weighting.factor", (1.5, 2.0)), stage1={STAGE1!r})
"""


@pytest.fixture
def sweep(commands, tmp_path):
    """Starts the command in its own process group, with its output in a file."""
    (tmp_path / "sweep.py").write_text(SWEEP)
    words = [str(tmp_path / "sweep.py"), f"--out={tmp_path / 'out'}"]
    driver = DRIVER.format(executable=commands.executable, words=words)
    python, started = os.path.realpath("/proc/self/exe"), []

    def start():
        commands.ready.unlink(missing_ok=True)
        with (tmp_path / "output").open("w") as output:
            process = subprocess.Popen(
                [python, "-c", driver],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
                stdout=output,
                stderr=output,
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


def test_killed_commands_resume_and_living_ones_are_waited_for(
    sweep, commands, tmp_path
):
    output, out = tmp_path / "output", tmp_path / "out"
    commands.set_exit_codes("factor1.5", 0, "wait", "wait", "wait", "wait")

    process = sweep()
    wait_until(commands.ready, process)
    os.killpg(process.pid, signal.SIGKILL)  # The waiting command is killed as well.
    process.wait()

    process = sweep()
    wait_until(commands.ready, process)
    process.kill()  # Its command lives on.
    process.wait()
    survivors = process.pid

    process = sweep()
    wait_for(output, "in use elsewhere", process)
    before = [call for call in commands.calls() if "factor1.5" in call[1]]
    assert [main for main, _ in before] == [
        "train",
        "evaluate",
        "train",
    ]
    os.killpg(survivors, signal.SIGTERM)
    wait_until(commands.ready, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75, output.read_text()
    assert "Preempted: Interrupted. Run the same command again" in output.read_text()

    commands.set_exit_codes("factor1.5")
    assert sweep().wait(timeout=300) == 0, output.read_text()
    assert "2 of 2 done, 0 failed" in output.read_text()
    assert {f.parent.name for f in out.glob("*/DONE.json")} == {"factor1.5", "factor2"}
