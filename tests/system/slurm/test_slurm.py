"""Real jobs on a real SLURM cluster of two nodes, sent by `ul submit slurm`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.slurm.conftest import free_ports, wait_until

ROOT = Path(__file__).parents[3]
QUIET = ["--config.log.tensorboard=false", "--config.validation.every=1000"]
BOTH = "--cpus_per_task=2"  # the tasks of a node are bound to as many as they ask for
STEPS, EVERY = 160, 40
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
pytestmark = pytest.mark.slurm


@pytest.fixture
def run(slurm):
    """Runs a main where the cluster is: what it printed."""
    env = slurm.env | {
        # The nodes' names are of this cluster alone: no resolver knows them.
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
    }

    def run(module, *words):
        return subprocess.run(
            [sys.executable, "-m", "ul", module, *words],
            cwd=ROOT,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    return run


@pytest.fixture
def submit(run):
    """Submits a stage-1 run of seconds: the job's id."""

    def submit(workdir, *args):
        config = "--config=experiments/digits.py:smoke"
        words = ["slurm", config, f"--workdir={workdir}", *QUIET, BOTH, *args]
        return int(run("submit", *words).split()[-1])  # Submitted batch job 7

    return submit


def end_of(slurm, job):
    """The states of the job's parts once all have ended."""

    def over():
        states = slurm.jobs(job)
        return states if states and set(states) <= FINAL else None

    return wait_until(f"the end of job {job}", over, 600)


def logs(workdir):
    return {f.name: f.read_text() for f in sorted((workdir / "logs").glob("slurm-*"))}


def steps(workdir):
    return {int(f.stem) for f in (workdir / "verified").glob("*.json")}


def digests(workdir, step):
    return json.loads((workdir / "verified" / f"{step}.json").read_text())["digests"]


def test_a_preempted_job_is_requeued_and_ends_as_the_uninterrupted_one(
    slurm, submit, tmp_path
):
    long = ["--nodes=2", f"--config.steps={STEPS}", "--devices=cpu:2"]
    long += [f"--config.checkpoint.every={EVERY}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    job = submit(whole, *long)
    assert end_of(slurm, job) == ["COMPLETED"], logs(whole)
    assert slurm.cpus(job) == [(2, 2), (2, 2)]

    job = submit(cut, *long)
    # To the shell, as ahead of the time limit; to the processes, as at a preemption.
    for restart, form in enumerate([["--batch"], []]):
        seen = steps(cut)
        wait_until("a checkpoint", lambda: steps(cut) - seen, 300)  # noqa: B023
        slurm("scancel", *form, "--signal=TERM", str(job))
        wait_until("the requeue", lambda: slurm.jobs(job) == ["PENDING"], 120)
        said = logs(cut)
        assert f"restart {restart}: exit code 75" in said[f"slurm-{job}.log"], said
        # At once, a node may still have the old start's credential revoked.
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now+5")
    assert max(steps(cut)) < STEPS
    assert end_of(slurm, job) == ["COMPLETED"], logs(cut)
    assert "restart 2: exit code 0" in logs(cut)[f"slurm-{job}.log"]
    assert f"slurm-{job}-process-1.log" in logs(cut)
    assert digests(cut, STEPS) == digests(whole, STEPS)


SWEEP = """
from experiments import sweeps

def get_sweep():
    return sweeps.trials(
        sweeps.grid("loss.weighting.factor", (1.5, 2.0)),
        stage1="experiments/digits.py:smoke",
        stage2="experiments/digits.py:smoke2",
        fixed={"both:log.tensorboard": False, "both:validation.every": 1000},
    )
"""


def test_an_array_of_trials(slurm, run, tmp_path):
    """Each trains and evaluates both of its stages; what is done is not sent again."""
    file, out = tmp_path / "two.py", tmp_path / "sweep"
    file.write_text(SWEEP)
    words = [str(file), f"--out={out}", "--place=slurm", BOTH, "--at_once=2"]
    job = int(run("sweep", *words).split()[-1])
    names = [f"factor{factor}" for factor in (1.5, 2)]
    assert end_of(slurm, job) == ["COMPLETED"] * 2, logs(out)
    for name, factor in zip(names, (1.5, 2.0), strict=True):
        found = json.loads((out / name / "stage1" / "config.json").read_text())
        assert found["config"]["loss"]["weighting"]["factor"] == factor
        for stage in ("stage1", "stage2"):
            assert digests(out / name / stage, 8)
            assert list((out / name / stage / "evals").glob("*.json"))
        assert (out / name / "DONE.json").exists()
    assert run("sweep", *words) == "All trials are done.\n"


def test_a_cancelled_job_stays_cancelled(slurm, submit, tmp_path):
    job = submit(tmp_path / "run", "--config.steps=100000")
    wait_until("a checkpoint", lambda: steps(tmp_path / "run"), 300)
    slurm("scancel", str(job))
    assert end_of(slurm, job) == ["CANCELLED"]
    assert slurm.cpus(job) == [(2, 2)]
