"""Processes that start and end together."""

import os
import signal
import time

import pytest

from launch import local
from launch.local.group import ProcessGroup
from launch.local.processes import LocalProcess


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run shell scripts as one group. `await FILE` waits, $PPID is the launcher."""
    monkeypatch.chdir(tmp_path)
    wait = 'await() { until [[ -e $1 ]]; do sleep 0.02; done; }; touch "started-$0"; '

    def run(*scripts, grace=30.0):
        group = ProcessGroup()
        processes = [
            LocalProcess(
                ["bash", "-c", wait + s, str(i)], {"I": str(i)}, tmp_path / f"{i}.log"
            )
            for i, s in enumerate(scripts)
        ]
        group.run(processes, grace)
        return group

    return run


def test_a_group_without_failures_exits_with_0(run, capsys):
    assert run("echo hello $I", "await started-0; echo other").code == 0
    assert capsys.readouterr().out == "hello 0\n"


def test_a_process_that_ends_at_once_is_reported(run, capsys, monkeypatch):
    """It ends before the first check, as on a busy machine."""
    start = LocalProcess.start

    def ended(self):
        process = start(self)
        process.wait()
        return process

    monkeypatch.setattr(LocalProcess, "start", ended)
    assert run("echo gone; exit 3").code == 3
    assert capsys.readouterr().out == "gone\n"


def test_only_new_output_is_shown(run, capsys, tmp_path):
    (tmp_path / "0.log").write_text("of an earlier run\n")
    run("echo new")
    assert capsys.readouterr().out == "new\n"
    assert (tmp_path / "0.log").read_text() == "of an earlier run\nnew\n"


def test_the_failure_of_one_process_ends_all(run, capsys, tmp_path):
    group = run(
        "trap 'touch ended; exit 3' TERM; sleep 99 & wait", "await started-0; exit 7"
    )
    assert (group.code, group.stopped) == (7, False)
    assert (tmp_path / "ended").exists()
    assert f"process 1: exit code 7; log: {tmp_path}/1.log" in capsys.readouterr().err


def test_a_process_that_ignores_sigterm_is_killed(run, capsys):
    group = run("trap '' TERM; touch deaf; while :; do sleep 0.1; done",
                "await deaf; kill -KILL $$", grace=0.3)  # fmt: skip
    assert group.code == 137
    assert "process 1: exit code 137 (SIGKILL)" in capsys.readouterr().err


SAVES = (
    "n=0; trap 'n=$((n + 1))' TERM; touch ready-$I; until ((n)); do sleep 0.02; done; "
)


def test_a_signal_goes_once_to_all_and_each_has_time_to_save(run, tmp_path):
    """Process 0 is done first; the other is still saving and gets no second signal."""
    group = run(
        SAVES + "exit 75",
        SAVES + "sleep 0.4; echo $n >signals; exit 75",
        "await ready-0; await ready-1; kill -TERM $PPID; exit 0",
    )
    assert (group.code, group.stopped) == (75, True)
    assert (tmp_path / "signals").read_text() == "1\n"


def test_a_signal_while_the_processes_start_reaches_all(run, tmp_path, monkeypatch):
    start = LocalProcess.start

    def interrupted(self):
        process = start(self)
        while not (tmp_path / f"ready-{self.environment['I']}").exists():
            time.sleep(0.01)
        if self.environment["I"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(LocalProcess, "start", interrupted)
    group = run(SAVES + "echo $n >signals; exit 75", SAVES + "exit 75")
    assert (group.code, group.stopped) == (75, True)
    assert (tmp_path / "signals").read_text() == "1\n"


def test_a_second_signal_kills_all(run):
    group = run(
        "trap 'touch first' TERM; touch ready; while :; do sleep 0.1; done",
        "await ready; trap '' TERM; kill -TERM $PPID; await first; kill -TERM $PPID; "
        "while :; do sleep 0.1; done",
    )
    assert (group.code, group.stopped) == (137, True)


def test_the_signal_handlers_are_restored(run):
    before = signal.getsignal(signal.SIGTERM)
    run("exit 0")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("codes", "retries", "ends"),
    [
        ((134, 75, 0), 2, (0, 3)),
        ((134, 75, 0), 1, (75, 2)),
        ((70, 0), 2, (70, 1)),
        ((69, 0), 2, (69, 1)),
        ((0,), 2, (0, 1)),
    ],
)
def test_retries_follow_the_exit_code(
    codes, retries, ends, ends_with, stand_in, job, tmp_path
):
    calls = ends_with(*codes)
    train = job(tmp_path, python=str(tmp_path / "bin/train"))
    assert (local.LocalPlace(retries=retries).submit(train), len(calls())) == ends
