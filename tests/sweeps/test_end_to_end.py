"""A sweep as a user runs it, killed in the middle, with real training runs."""

import json
import os
import signal

import pytest

from tests.lib.commands import digests, wait_for_step
from ul.checkpoints.reading import verified_steps

SWEEP = """
from experiments import sweeps

def get_sweep(arg="two"):
    factors = (1.5,) if arg == "one" else (1.5, 2.0)
    return sweeps.trials(
        sweeps.grid("loss.weighting.factor", factors),
        stage1="experiments/digits.py:smoke",
        stage2=None if arg == "one" else "experiments/digits.py:smoke2",
        fixed={"both:log.tensorboard": False},
    )
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return path


def assert_exit_code(process, code):
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == code, output


def assert_finished(out, *names, stages=("stage1", "stage2")):
    for name in names:
        assert (out / name / "DONE.json").exists()
        for stage in stages:
            assert verified_steps(out / name / stage)[-1] == 8
            (record,) = (out / name / stage / "evals").glob("*.json")
            json.loads(record.read_text())
        first = json.loads((out / name / "stage1/config.json").read_text())
        assert f"factor{first['config']['loss']['weighting']['factor']:g}" == name


def test_a_sweep_that_was_killed_twice_ends_like_an_undisturbed_one(
    command, sweep_file, tmp_path
):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert_exit_code(
        command.start("sweep", sweep_file, "--out", undisturbed, "--jobs=2"), 0
    )
    assert_finished(undisturbed, "factor1.5", "factor2")

    words = ("sweep", sweep_file, "--out", killed, "--jobs=2")
    process = command.start(*words, prefix=("setsid",))
    wait_for_step(process, killed / "factor1.5/stage1", 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    process = command.start(*words)
    wait_for_step(process, killed / "factor2/stage1", 4)
    process.kill()  # Its commands live on, and the next sweep waits for them.
    process.communicate()

    process = command.start(*words)
    wait_for_step(process, killed / "factor1.5/stage2", 2)
    process.send_signal(signal.SIGTERM)
    assert_exit_code(process, 75)

    assert_exit_code(command.start(*words), 0)
    assert_finished(killed, "factor1.5", "factor2")
    for stage in ("factor1.5/stage1", "factor1.5/stage2", "factor2/stage2"):
        assert digests(killed / stage) == digests(undisturbed / stage)


def test_a_single_trial_and_then_the_whole_sweep(command, sweep_file, tmp_path):
    """A task of a job array runs one trial; the whole sweep then has nothing left to do."""
    out, one = tmp_path / "out", f"{sweep_file}:one"
    output = command("sweep", sweep_file, "--out", out, "--trial=none", code=64)
    assert (
        "--trial must name trials of the sweep (factor1.5, factor2); got ['none']"
        in output
    )
    assert not out.exists()
    assert_exit_code(command.start("sweep", one, "--out", out, "--trial=factor1.5"), 0)
    assert_finished(out, "factor1.5", stages=["stage1"])
    assert "1 of 1 done, 0 failed" in command("sweep", one, "--out", out)
    output = command("sweep", sweep_file, "--out", out, code=64)
    assert "these differ: trial factor1.5: 1 -> 2 stages. Undo" in output
