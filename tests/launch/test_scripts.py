"""The shell scripts pass shellcheck and react to every exit code as documented.

Scripts stand in for srun, scontrol, gcloud and the train command.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import slurm, tpu_vm
from launch.lib.exit_codes import run_again

GOLDEN = Path(__file__).parent / "golden"
BIN = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CODES = (
    0,
    1,
    2,
    64,
    65,
    66,
    69,
    70,
    73,
    74,
    75,
    76,
    124,
    127,
    129,
    134,
    137,
    139,
    143,
    255,
)


def scripts():
    """Yield name and text of every script in the golden files."""
    for file in GOLDEN.glob("*.sh"):
        yield file.name, file.read_text()
    pieces = re.split(
        r"^==> (.+) <==\n", (GOLDEN / "tpu_vm.txt").read_text(), flags=re.M
    )
    yield from zip(pieces[1::2], pieces[2::2], strict=True)


@pytest.mark.skipif(
    not shutil.which("shellcheck", path=BIN),
    reason="no shellcheck: pip install -e '.[test]' or apt-get install shellcheck",
)
@pytest.mark.parametrize("text", [pytest.param(t, id=n) for n, t in scripts()])
def test_shellcheck_finds_nothing(text):
    command = [shutil.which("shellcheck", path=BIN), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def start(stand_in, job, tmp_path):
    """Start the batch script as SLURM would."""

    def start(**env):
        script = slurm.SlurmPlace().render(job(tmp_path))["job.sh"]
        env = stand_in.env | {"SLURM_JOB_ID": "7"} | env
        return subprocess.Popen(["bash", "-c", script], env=env)

    return start


@pytest.mark.parametrize("code", CODES)
def test_slurm_requeues_after_exit_codes_that_allow_it(stand_in, start, code):
    stand_in("srun", f"exit {code}")
    calls = stand_in("scontrol", "echo JobState=RUNNING")
    assert start().wait() == code
    assert ("requeue 7" in calls()) == run_again(code)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("code", [c for c in CODES if run_again(c)])
def test_slurm_gives_up_after_max_attempts_short_starts(
    stand_in, start, tmp_path, code, writable
):
    """Also if the workdir, and with it the count of short starts, cannot be written."""
    stand_in("srun", f"exit {code}")
    calls = stand_in("scontrol", "echo JobState=RUNNING")
    if writable:
        (tmp_path / "logs").mkdir()
    for restart in range(6):
        assert start(SLURM_RESTART_COUNT=str(restart)).wait() == code
        if calls().count("requeue 7") <= restart:
            break
    assert restart == 2 and calls().count("requeue 7") == 2


def test_slurm_counts_only_short_starts(stand_in, start, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm.batch_script, "SHORT_START_SECONDS", 0)
    (tmp_path / "logs").mkdir()
    stand_in("srun", "exit 75")
    calls = stand_in("scontrol", "echo JobState=RUNNING")
    for restart in range(6):
        start(SLURM_RESTART_COUNT=str(restart)).wait()
    assert calls().count("requeue 7") == 6


def test_slurm_passes_the_cores_of_a_process_to_srun(stand_in, job, tmp_path):
    """Since version 22.05 srun does not inherit --cpus-per-task."""
    calls = stand_in("srun", f"echo $SRUN_CPUS_PER_TASK >{tmp_path}/cpus; exit 0")
    script = slurm.SlurmPlace(cpus_per_task=6).render(job(tmp_path))["job.sh"]
    env = stand_in.env | {"SLURM_JOB_ID": "7"}
    assert subprocess.run(["bash", "-c", script], env=env).returncode == 0
    assert len(calls()) == 1 and (tmp_path / "cpus").read_text() == "6\n"


def test_slurm_does_not_requeue_a_cancelled_job(stand_in, start):
    stand_in("srun", "exit 143")
    calls = stand_in("scontrol", "echo JobState=CANCELLED")
    start().wait()
    assert calls() == ["show job -o 7"]


@pytest.mark.parametrize(("step", "scancel"), [(0.3, 0), (0, 0.3)])
def test_slurm_forwards_the_signal_and_waits(stand_in, start, tmp_path, step, scancel):
    """The exit code is the step's, not that of `wait`, whether or not scancel ends first."""
    until = "until [[ -e $F/term ]]; do sleep 0.02; done"
    stand_in("srun", f"touch $F/ready; {until}; sleep {step}; exit 75")
    signals = stand_in("scancel", f"touch $F/term; sleep {scancel}")
    calls = stand_in("scontrol", "echo JobState=RUNNING")
    process = start(F=str(tmp_path))
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert (signals(), calls()[-1]) == (["--signal=TERM 7"], "requeue 7")


def test_a_task_of_an_array_requeues_only_itself(stand_in, job, tmp_path):
    """The job id of the last task is the id of the whole array."""
    stand_in("srun", "exit 75")
    calls = stand_in("scontrol", "echo JobState=RUNNING")
    sweep = job(tmp_path, trials=("low", "middle", "high"))
    script = slurm.SlurmPlace().render(sweep)["job.sh"]
    ids = dict(SLURM_JOB_ID="7", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="2")
    subprocess.run(["bash", "-c", script], env=stand_in.env | ids)
    assert calls() == ["show job -o 7_2", "requeue 7_2"]


def wait_for(file):
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} was not created within 30 s")


@pytest.fixture
def render_tpu_vm(job):
    place = tpu_vm.TpuVmPlace(
        accelerator="v5p-8", runtime="r", zone="z", poll_seconds=0
    )
    return place.render(job("gs://bucket/s1"))


@pytest.fixture
def worker(stand_in, ends_with, render_tpu_vm, tmp_path):
    """Run the script where the code is installed; returns its exit code and its calls."""
    (tmp_path / "ul").mkdir()
    (tmp_path / "ul/.installed").touch()
    stand_in("sleep", "")

    def run(*codes):
        calls = ends_with(*codes)
        env = stand_in.env | {"HOME": str(tmp_path)}
        subprocess.run(["bash", "-c", render_tpu_vm["worker.sh"]], env=env)
        return int((tmp_path / "exit-code").read_text()), calls()

    return run


@pytest.mark.parametrize("code", [c for c in CODES if c != 1])
def test_a_tpu_worker_retries_after_exit_codes_that_allow_it(worker, code):
    assert worker(code, 0)[0] == (0 if run_again(code) else code)


@pytest.mark.parametrize("code", [c for c in CODES if run_again(c)])
def test_a_tpu_worker_gives_up_after_max_attempts_short_starts(worker, code):
    ended_with, calls = worker(*[code] * 9, 0)
    assert (ended_with, len(calls)) == (code, 3)
    assert calls[0] == "-m ul train --config c --workdir gs://bucket/s1 " + (
        "--config.x=a 'b'"
    )


def test_a_tpu_worker_counts_only_short_starts(worker, render_tpu_vm):
    text = render_tpu_vm["worker.sh"]
    render_tpu_vm["worker.sh"] = text.replace("began < 600", "began < 0")
    assert worker(*[75] * 8, 0)[0] == 0


def test_a_tpu_worker_whose_installation_fails_ends(stand_in, render_tpu_vm, tmp_path):
    stand_in("sleep", "")
    calls = stand_in("tar", "exit 1")
    env = stand_in.env | {"HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", render_tpu_vm["worker.sh"]],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and (tmp_path / "exit-code").read_text() == "1\n"
    assert len(calls()) == 3 and done.stdout.count("installation failed") == 3


def run_queue(stand_in, scripts, folder) -> subprocess.CompletedProcess:
    for name, text in scripts.items():
        (folder / name).write_text(text)
    return subprocess.run(
        ["bash", "queue.sh"],
        cwd=folder,
        env=stand_in.env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_resource_that_never_becomes_active_is_given_up(
    stand_in, render_tpu_vm, tmp_path
):
    state = tmp_path / "state"
    body = f"""
      case "$*" in
        *describe*)
          if [[ -e {state} ]]; then echo FAILED; else echo NOT_FOUND >&2; exit 1; fi ;;
        *create*) touch {state} ;;
        *delete*) rm {state} ;;
      esac"""
    calls = stand_in("gcloud", body)
    done = run_queue(stand_in, render_tpu_vm, tmp_path)
    assert done.returncode == 69 and "never became active" in done.stdout
    assert sum("create" in call for call in calls()) == 3
    assert all("--quiet" in call for call in calls())


def test_a_queued_resource_is_requested_again_when_it_is_taken_away(
    stand_in, render_tpu_vm, tmp_path
):
    """The script waits, sends the code once, starts, loses the machines, and exits with
    the code of the worker that failed."""
    states = "NONE WAITING_FOR_RESOURCES ACTIVE ACTIVE SUSPENDED NONE ACTIVE".split()
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    body = f"""
      case "$*" in
        *describe*)
          state=$(head -n 1 {tmp_path}/states); sed -i 1d {tmp_path}/states
          if [[ $state == NONE ]]; then echo "NOT_FOUND: no such" >&2; exit 1; fi
          echo "$state" ;;
        *scp*) touch {tmp_path}/sent ;;
        *delete*) rm -f {tmp_path}/sent ;;
        *"test -e worker.sh"*) [[ -e {tmp_path}/sent ]] ;;
        *exit-code=*) [[ -s {tmp_path}/states ]] || printf 'exit-code=%s\\n' 0 65 0 ;;
      esac"""
    calls = stand_in("gcloud", body)
    done = run_queue(stand_in, render_tpu_vm, tmp_path)
    assert done.returncode == 65, done.stderr
    actions = re.compile("create|scp|setsid|delete")
    steps = [m[0] for call in calls() if (m := actions.search(call))]
    assert steps == "create scp setsid setsid delete create scp setsid delete".split()
    assert (tmp_path / "code.tgz").stat().st_size > 0
