"""Which commands run, are skipped, run again and are stopped; they are stand-ins."""

import fcntl
import os
import signal
import subprocess
import threading
import time

import pytest

from launch.lib.exit_codes import run_again
from tests.lib.breaks import Break
from ul import sweeps
from ul.core import files
from ul.core.errors import StorageError
from ul.sweeps import records

BOTH_STAGES = ["train", "evaluate"] * 2


def points(*factors):
    return [{"loss.weighting.factor": factor} for factor in factors]


@pytest.fixture
def run(commands, tmp_path):
    """A function that runs trials and returns the failed ones and the runner."""

    def run(trials, **options):
        options = dict(should_retry=run_again) | options
        runner = sweeps.SweepRunner(str(tmp_path / "out"), trials, **options)
        return runner.run(), runner

    return run


def modules(commands, trial=""):
    return [module for module, stage in commands.calls() if stage.startswith(trial)]


def test_both_stages_train_and_are_evaluated_once(run, commands, expand, tmp_path):
    (trial,) = expand(*points(1.5))
    assert run([trial])[0] == {}
    stages = ["factor1.5/stage1"] * 2 + ["factor1.5/stage2"] * 2
    assert commands.calls() == list(zip(BOTH_STAGES, stages, strict=True))
    assert sweeps.is_trial_finished(records.epath.Path(tmp_path / "out"), trial)
    assert run([trial])[0] == {}
    assert len(commands.calls()) == 4
    log = (tmp_path / "out" / "factor1.5.log").read_text()
    assert "-m ul train --config experiments/digits.py:smoke --workdir" in log


def test_a_failure_ends_its_trial_alone_and_is_resumed(run, commands, expand):
    trials = expand(*points(1.5, 2.0))
    commands.set_exit_codes("factor1.5", 0, 65)
    assert run(trials)[0] == {"factor1.5": 65}
    assert modules(commands, "factor1.5") == BOTH_STAGES[:2]
    assert modules(commands, "factor2") == BOTH_STAGES
    assert run(trials)[0] == {}
    # Training runs again and resumes from its checkpoint.
    assert modules(commands, "factor1.5") == BOTH_STAGES[:2] + BOTH_STAGES


def test_an_unfinished_trial_resumes_at_its_last_stage(run, commands, expand):
    trials = expand(*points(1.5))
    commands.set_exit_codes("factor1.5", 0, 0, 74)
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
def test_only_commands_that_may_succeed_run_again(
    run, commands, expand, codes, retries, failed, trainings
):
    commands.set_exit_codes("factor1.5", *codes)
    assert run(expand(*points(1.5)), retries=retries)[0] == failed
    assert modules(commands).count("train") == trainings


def test_a_stage_without_its_last_checkpoint_is_not_done(run, commands, expand):
    (trial,) = expand(*points(1.5), assignments=["steps=9"])  # It saves step 8.
    assert run([trial])[0] == {"factor1.5": 66}
    assert modules(commands) == ["train"]


def test_a_shared_stage_1_is_trained_once(run, commands, expand):
    shared = [{"stage2:base.depths": (n,)} for n in (1, 2)]
    assert run(expand(*shared, share_stage1=True), jobs=2)[0] == {}
    assert modules(commands, "shared/stage1") == BOTH_STAGES[:2]
    assert len(commands.calls()) == 6


def call_once(condition, action):
    """Call `action` in another thread, once the condition holds."""

    def watch():
        for _ in range(1000):
            if condition():
                return action()
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
    calls = []

    def release():
        calls.extend(commands.calls())
        os.close(handle)

    call_once(lambda: len(modules(commands, "factor2")) == 4, release)
    assert run(expand(*points(1.5, 2.0)))[0] == {}
    assert [stage.split("/")[0] for _, stage in calls] == ["factor2"] * 4
    assert modules(commands, "factor1.5") == BOTH_STAGES


def test_a_workdir_in_use_is_tried_again(run, commands, expand):
    commands.set_exit_codes("factor1.5", 73, 73)
    assert run(expand(*points(1.5)))[0] == {}
    assert modules(commands)[:3] == ["train"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_starts_after_it(
    run, commands, expand, number
):
    commands.set_exit_codes("factor1.5", "wait")
    call_once(commands.ready.exists, lambda: os.kill(os.getpid(), number))
    failed, runner = run(expand(*points(1.5, 2.0)))
    assert failed == {"factor1.5": 75, "factor2": 75} and runner.stopped
    assert commands.calls() == [("train", "factor1.5/stage1")]
    assert run(expand(*points(1.5, 2.0)))[0] == {}


def test_a_command_holds_its_stage_until_it_ends(tmp_path):
    """After kill -9 of the sweep alone, the next sweep must not train beside it."""
    descriptor = files.lock(tmp_path / "a" / "stage1.lock")
    child = subprocess.Popen(["sleep", "600"], pass_fds=(descriptor,))
    os.close(descriptor)  # As the kernel does at a kill.
    try:
        assert files.lock(tmp_path / "a" / "stage1.lock") is None
    finally:
        child.kill()
        child.wait()
    os.close(files.lock(tmp_path / "a" / "stage1.lock"))
    with pytest.raises(StorageError, match="cannot be written"):
        files.lock(tmp_path / "a" / "stage1.lock" / "b")


def test_commands_inherit_the_lock(run, commands, expand, tmp_path, monkeypatch):
    num_inherited = []
    popen = subprocess.Popen

    def start(*args, **options):
        if "pass_fds" in options:  # git is started without it.
            num_inherited.append(len(options["pass_fds"]))
        return popen(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    run(expand(*points(1.5)))
    assert num_inherited == [1] * 4


def test_one_of_several_processes_evaluates_and_the_others_wait(
    run, commands, expand, tmp_path
):
    (trial,) = expand(*points(1.5))
    out = records.epath.Path(tmp_path / "out")
    first, second = trial.stages

    def evaluate_once_trained(stage):
        return lambda: (
            (out / stage.workdir / "verified/8.json").exists()
            and not time.sleep(0.1)
            and records.mark_stage_finished(out, stage, 8) is None
        )

    call_once(
        evaluate_once_trained(first),
        lambda: call_once(evaluate_once_trained(second), lambda: None),
    )
    assert run([trial], is_first=False)[0] == {}
    assert modules(commands) == ["train"] * 2
    assert not sweeps.is_trial_finished(out, trial)  # The first process writes that.


BREAKS = (
    Break(
        "stage 2 trained on an unverified stage 1",
        "ul/sweeps/runner.py",
        "if stage.steps not in verified_steps(self._path / stage.workdir):",
        "if False:",
        "test_a_stage_without_its_last_checkpoint_is_not_done",
    ),
    Break(
        "commands that do not hold the lock of their stage",
        "ul/sweeps/runner.py",
        "stderr=log,\n                    pass_fds=descriptors",
        "stderr=log,\n                    pass_fds=()",
        "test_commands_inherit_the_lock",
    ),
)
