"""A sweep as a user runs it, killed in the middle; the runs are real."""

import json
import os
import signal

import pytest

from tests.lib.commands import digests, wait_for_step
from ul.checkpoints.store import verified_steps

SWEEP = """
from experiments import sweeps

def get_sweep(arg="two"):
    factors = (1.5,) if arg == "one" else (1.5, 2.0)
    return sweeps.trials(
        sweeps.grid("loss.factor", factors),
        stage1="experiments/digits.py:smoke",
        stage2=None if arg == "one" else "experiments/digits.py:smoke2",
        fixed={"both:log.tensorboard": False},
    )
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return path


def ends(process, code):
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == code, output


def check(out, *names, stages=("stage1", "stage2")):
    for name in names:
        assert (out / name / "DONE.json").exists()
        for stage in stages:
            assert verified_steps(out / name / stage)[-1] == 8
            (record,) = (out / name / stage / "evals").glob("*.json")
            json.loads(record.read_text())
        first = json.loads((out / name / "stage1/config.json").read_text())
        assert f"factor{first['config']['loss']['factor']:g}" == name


def test_killed_with_its_children_and_alone_it_ends_as_the_undisturbed(
    command, file, tmp_path
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ends(command.start("sweep", file, "--out", whole, "--jobs=2"), 0)
    check(whole, "factor1.5", "factor2")

    words = ("sweep", file, "--out", cut, "--jobs=2")
    process = command.start(*words, prefix=("setsid",))
    wait_for_step(process, cut / "factor1.5/stage1", 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    process = command.start(*words)
    wait_for_step(process, cut / "factor2/stage1", 4)
    process.kill()  # alone: what it started lives on, and is waited for
    process.communicate()

    process = command.start(*words)
    wait_for_step(process, cut / "factor1.5/stage2", 2)
    process.send_signal(signal.SIGTERM)
    ends(process, 75)

    ends(command.start(*words), 0)
    check(cut, "factor1.5", "factor2")
    for stage in ("factor1.5/stage1", "factor1.5/stage2", "factor2/stage2"):
        assert digests(cut / stage) == digests(whole / stage)


def test_one_trial_by_name_and_the_same_again(command, file, tmp_path):
    """What an array's task runs; then the whole sweep, which has nothing left to do."""
    out, one = tmp_path / "out", f"{file}:one"
    said = command("sweep", file, "--out", out, "--trial=none", code=64)
    assert "--trial has unknown ['none']; known are factor1.5, factor2" in said
    assert not out.exists()
    ends(command.start("sweep", one, "--out", out, "--trial=factor1.5"), 0)
    check(out, "factor1.5", stages=["stage1"])
    assert "1 of 1 done, 0 failed" in command("sweep", one, "--out", out)
    said = command("sweep", file, "--out", out, code=64)
    assert "was begun with another sweep (trial factor1.5: 1 -> 2 stages)" in said
