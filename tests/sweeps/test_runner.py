"""What is run, passed over, run again and told to stop; the commands are stand-ins."""

import fcntl
import os
import signal
import subprocess
import threading
import time

import pytest

from launch.lib.jobs import run_again
from ul import sweeps
from ul.core import files
from ul.core.errors import StorageError
from ul.sweeps import records

BOTH = ["launch.train", "launch.evaluate"] * 2


def points(*factors):
    return [{"loss.factor": factor} for factor in factors]


@pytest.fixture
def run(commands, tmp_path):
    def run(trials, out="out", **how):
        how = dict(again=run_again) | how
        runner = sweeps.Runner(str(tmp_path / out), trials, **how)
        return runner.run(), runner

    return run


def mains(commands, trial=""):
    return [main for main, stage in commands.calls() if stage.startswith(trial)]


def test_both_stages_train_and_are_evaluated_once(run, commands, expand, tmp_path):
    (trial,) = expand(*points(1.5))
    assert run([trial])[0] == {}
    stages = ["factor1.5/stage1"] * 2 + ["factor1.5/stage2"] * 2
    assert commands.calls() == list(zip(BOTH, stages, strict=True))
    assert sweeps.finished(records.epath.Path(tmp_path / "out"), trial)
    assert run([trial])[0] == {}
    assert len(commands.calls()) == 4
    log = (tmp_path / "out" / "factor1.5.log").read_text()
    assert "-m launch.train --config experiments/digits.py:smoke --workdir" in log


def test_a_failure_ends_its_trial_alone_and_is_taken_up_again(run, commands, expand):
    trials = expand(*points(1.5, 2.0))
    commands.end("factor1.5", 0, 65)
    assert run(trials)[0] == {"factor1.5": 65}
    assert mains(commands, "factor1.5") == BOTH[:2]
    assert mains(commands, "factor2") == BOTH
    assert run(trials)[0] == {}
    # Training is asked again, and goes on from its checkpoint.
    assert mains(commands, "factor1.5") == BOTH[:2] + BOTH


def test_what_is_half_done_is_resumed_where_it_was(run, commands, expand):
    trials = expand(*points(1.5))
    commands.end("factor1.5", 0, 0, 74)
    assert run(trials)[0] == {"factor1.5": 74}
    assert run(trials)[0] == {}
    stages = [stage for _, stage in commands.calls()]
    assert stages == ["factor1.5/stage1"] * 2 + ["factor1.5/stage2"] * 3


@pytest.mark.parametrize(
    ("codes", "retries", "failed", "trainings"),
    [
        ([74, 137], 2, {}, 4),
        ([74, 137, 1], 2, {"factor1.5": 1}, 3),
        ([74], 0, {"factor1.5": 74}, 1),
        ([64], 2, {"factor1.5": 64}, 1),
        ([70], 2, {"factor1.5": 70}, 1),
    ],
)
def test_only_what_may_succeed_is_run_again(
    run, commands, expand, codes, retries, failed, trainings
):
    commands.end("factor1.5", *codes)
    assert run(expand(*points(1.5)), retries=retries)[0] == failed
    assert mains(commands).count("launch.train") == trainings


def test_a_stage_without_its_last_checkpoint_is_not_done(run, commands, expand):
    (trial,) = expand(*points(1.5), sets=["steps=9"])  # the stand-in saves step 8
    assert run([trial])[0] == {"factor1.5": 66}
    assert mains(commands) == ["launch.train"]


def test_a_shared_stage_1_is_trained_once(run, commands, expand):
    shared = [{"stage2:base.depths": (n,)} for n in (1, 2)]
    assert run(expand(*shared, share_stage1=True), jobs=2)[0] == {}
    assert mains(commands, "shared/stage1") == BOTH[:2]
    assert len(commands.calls()) == 6


def later(condition, then):
    """In another thread, once it holds."""

    def watch():
        for _ in range(1000):
            if condition():
                return then()
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_stage_that_another_process_holds_is_waited_for(
    run, commands, expand, tmp_path
):
    (tmp_path / "out/factor1.5").mkdir(parents=True)
    handle = os.open(tmp_path / "out/factor1.5/stage1.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    seen = []

    def release():
        seen.extend(commands.calls())
        os.close(handle)

    later(lambda: len(mains(commands, "factor2")) == 4, release)
    assert run(expand(*points(1.5, 2.0)))[0] == {}
    assert [stage.split("/")[0] for _, stage in seen] == ["factor2"] * 4
    assert mains(commands, "factor1.5") == BOTH


def test_a_run_that_another_process_trains_is_asked_for_again(run, commands, expand):
    commands.end("factor1.5", 73, 73)
    assert run(expand(*points(1.5)))[0] == {}
    assert mains(commands)[:3] == ["launch.train"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_begins_after_it(
    run, commands, expand, number
):
    commands.end("factor1.5", "wait")
    later(commands.ready.exists, lambda: os.kill(os.getpid(), number))
    failed, runner = run(expand(*points(1.5, 2.0)))
    assert failed == {"factor1.5": 75, "factor2": 75} and runner.stopped
    assert commands.calls() == [("launch.train", "factor1.5/stage1")]
    assert run(expand(*points(1.5, 2.0)))[0] == {}


def test_a_command_holds_its_stage_for_as_long_as_it_lives(tmp_path):
    """After a kill -9 of the sweep alone the next one must not train beside it."""
    handle = files.lock(tmp_path / "a" / "stage1.lock")
    child = subprocess.Popen(["sleep", "600"], pass_fds=(handle,))
    os.close(handle)  # as the kernel does at a kill
    try:
        assert files.lock(tmp_path / "a" / "stage1.lock") is None
    finally:
        child.kill()
        child.wait()
    os.close(files.lock(tmp_path / "a" / "stage1.lock"))
    with pytest.raises(StorageError, match="cannot be written"):
        files.lock(tmp_path / "a" / "stage1.lock" / "b")


def test_commands_inherit_the_lock(run, commands, expand, tmp_path, monkeypatch):
    given = []
    popen = subprocess.Popen

    def start(*args, **how):
        given.extend(
            [len(how["pass_fds"])] if "pass_fds" in how else []
        )  # git has none
        return popen(*args, **how)

    monkeypatch.setattr(subprocess, "Popen", start)
    run(expand(*points(1.5)))
    assert given == [1] * 4


def test_one_of_several_processes_evaluates_and_the_others_wait(
    run, commands, expand, tmp_path
):
    (trial,) = expand(*points(1.5))
    out = records.epath.Path(tmp_path / "out")
    first, second = trial.stages

    def evaluated(stage):
        return lambda: (
            (out / stage.workdir / "verified/8.json").exists()
            and not time.sleep(0.1)
            and records.close_stage(out, stage, 8) is None
        )

    later(evaluated(first), lambda: later(evaluated(second), lambda: None))
    assert run([trial], first=False)[0] == {}
    assert mains(commands) == ["launch.train"] * 2
    assert not sweeps.finished(out, trial)  # the first one says so
