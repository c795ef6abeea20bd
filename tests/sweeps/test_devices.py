"""The GPUs of a machine, divided among trials that run together."""

import os
import stat

import pytest

from tests.lib.breaks import Break
from ul.sweeps import devices, runner
from ul.sweeps.expand import Trial


@pytest.mark.parametrize(
    ("gpus", "jobs", "visible", "fraction"),
    [
        ("01234567", 8, list("01234567"), None),
        ("01234567", 2, ["0,1,2,3", "4,5,6,7"], None),
        ("01234567", 3, ["0,1", "2,3", "4,5"], None),
        ("01", 4, ["0", "1", "0", "1"], "0.45"),
        ("0", 3, ["0", "0", "0"], "0.30"),
    ],
)
def test_every_trial_has_its_own_gpus_or_a_part_of_one(gpus, jobs, visible, fraction):
    environments = devices.environments(list(gpus), jobs)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == visible
    found = {e.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for e in environments}
    assert found == {fraction}


def test_without_gpus_or_with_one_trial_nothing_is_set():
    assert devices.environments([], 3) == [{}, {}, {}]
    assert devices.environments(["0", "1"], 1) == [{}]


def test_a_fraction_of_the_user_stays(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    found = devices.environments(["0"], 2)
    assert {e["XLA_PYTHON_CLIENT_MEM_FRACTION"] for e in found} == {"0.2"}


@pytest.fixture
def four_gpus(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi that lists four GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n3\\n'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_gpus_are_those_of_the_driver_or_of_the_environment(
    four_gpus, monkeypatch, tmp_path
):
    assert devices.local_gpus() == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert devices.local_gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,3")
    assert devices.local_gpus() == ["2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.local_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.local_gpus() == []


class Command:
    """A running command that ends after two polls."""

    polls = 0

    def poll(self):
        self.polls += 1
        return 0 if self.polls > 2 else None

    def send_signal(self, number):
        pass


def test_a_trial_keeps_its_gpus_and_the_next_one_takes_them_over(
    four_gpus, monkeypatch, tmp_path
):
    started = []

    class Runner(runner.SweepRunner):
        def _commands(self, execution):
            for stage in range(2):
                environment = self._environments[execution.slot]
                started.append(
                    (execution.trial.name, stage, environment["CUDA_VISIBLE_DEVICES"])
                )
                yield Command()
            return 0

    trials = [Trial(name, {}, ()) for name in "abcde"]
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.0)
    sweep = Runner(
        str(tmp_path),
        trials,
        should_retry=lambda code: False,
        jobs=4,
        log_to_files=False,
    )
    assert sweep.run() == {}
    gpus = {name: {gpu for n, _, gpu in started if n == name} for name in "abcde"}
    assert all(len(used) == 1 for used in gpus.values())
    assert {next(iter(gpus[name])) for name in "abcd"} == {"0", "1", "2", "3"}


BREAKS = (
    Break(
        "trials that take memory as if each had a GPU of its own",
        "ul/sweeps/devices.py",
        "MEMORY_FRACTION / math.ceil(jobs / len(gpus))",
        "MEMORY_FRACTION",
        "test_every_trial_has_its_own_gpus_or_a_part_of_one",
    ),
    Break(
        "all trials on the first GPU",
        "ul/sweeps/runner.py",
        "execution.slot = free[0]",
        "execution.slot = 0",
        "test_a_trial_keeps_its_gpus_and_the_next_one_takes_them_over",
    ),
)
