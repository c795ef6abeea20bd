"""The output of `--dry-run` for each place. Update it with `make goldens`."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.lib import forks
from tests.lib.breaks import Break
from ul.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
COMMON = [
    "--config=experiments/digits.py:stage1",
    "--config.seed=1",
    "--config.ema=(0.9, 0.99)",
    "--python=python",
    "--dry-run",
]
BUCKET = ["--workdir=gs://bucket/s1", "--spot", "--service_account=trainer"]
SLURM = ["slurm", "--workdir=/shared/s1", "--partition=gpu", "--account=lab"]
GKE = ["gke", *BUCKET, "--image=registry/ul:1", "--queue=team"]
CASES = {
    "local-cpu.sh": [
        *("local", "--workdir=/data/s1", "--port=12345"),
        *("--processes=2", "--devices_per_process=4", "--devices=cpu:8"),
    ],
    "local-gpu.sh": [
        *("local", "--workdir=/data/s1", "--port=12345"),
        *("--processes=2", "--devices_per_process=4", "--devices=gpu:8"),
    ],
    "local-one.sh": ["local", "--workdir=/data/s1"],
    "slurm-gpus.sh": [
        *(*SLURM, "--nodes=4", "--tasks_per_node=8", "--gpus_per_node=8"),
        *("--cpus_per_task=12", "--time=2-00:00:00", "--devices=gpu:32"),
    ],
    "slurm-nodes.sh": [*SLURM, "--nodes=4", "--gpus_per_node=8", "--sbatch=--qos=high"],
    "gke-tpu.yaml": [*GKE, "--accelerator=tpu-v5p-slice", "--topology=4x4x4"],
    "gke-slices.yaml": [
        *(*GKE, "--accelerator=tpu-v6e-slice", "--topology=4x4", "--slices=2"),
        "--env=LIBTPU_INIT_ARGS=--mine",
    ],
    "gke-gpu.yaml": [
        *(*GKE, "--accelerator=nvidia-h100-80gb", "--nodes=4", "--gpus_per_node=8"),
        "--devices=gpu:32",
    ],
    "tpu_vm.txt": [
        *("tpu_vm", *BUCKET, "--accelerator=v5p-128", "--runtime=v2-alpha-tpuv5"),
        *("--zone=us-east5-a", "--project=mine", "--valid_until=6h"),
        "--devices=tpu:64",
    ],
}
SWEEP = ["experiments/sweeps/loss_factor.py", "--python=python", "--dry-run"]
SWEEPS = {
    "sweep-slurm.sh": [
        *("--place=slurm", "--out=/shared/sweep", "--partition=gpu", "--at_once=2"),
        *("--gpus_per_node=1", "--devices=gpu:1", "--set=seed=1"),
    ],
    "sweep-gke.yaml": [
        *("--place=gke", "--out=gs://bucket/sweep", "--image=registry/ul:1", "--spot"),
        *("--accelerator=nvidia-h100-80gb", "--gpus_per_node=8", "--queue=team"),
        "--trial=factor1.3,factor2.1",
    ],
}


@pytest.fixture(scope="module")
def printed():
    """Return the output of each dry run by the name of its golden file."""
    commands = {name: ["submit", *words, *COMMON] for name, words in CASES.items()}
    commands |= {name: ["sweep", *SWEEP, *words] for name, words in SWEEPS.items()}
    done = dict(zip(commands, forks.run_all(list(commands.values())), strict=True))
    assert all(d.code == 0 for d in done.values()), [d.err for d in done.values()]
    return {name: d.out.replace(str(ROOT), "/repo") for name, d in done.items()}


@pytest.mark.parametrize("name", [*CASES, *SWEEPS])
def test_the_dry_run_is_the_golden_file(printed, name):
    if os.environ.get("UPDATE_GOLDENS"):
        (GOLDEN / name).write_text(printed[name])
    assert printed[name] == (GOLDEN / name).read_text()


def train_commands(name):
    """Return every train command of a golden file as a list of words."""
    text = (GOLDEN / name).read_text()
    if name.endswith(".yaml"):
        listed = re.search(r"command:\n(( +- .*\n)+)", text)[1]
        return [re.findall(r'- "(.*)"', listed)]
    if name.startswith("local"):
        commands = re.findall(r"python -m .*(?= >>)", text)
    else:
        commands = re.findall(r"train=\(\n(.*?)\n\)", text, re.S)
    shell = ["bash", "-c", 'eval "words=($1)"; printf "%s\\n" "${words[@]}"', "-"]
    return [
        subprocess.check_output([*shell, c], text=True).splitlines() for c in commands
    ]


# The devices that the flags of a place ask for.
OWN_DEVICES = {
    "gke-slices.yaml": "--devices=tpu:32",
    "slurm-nodes.sh": "--devices=gpu:32",
    "gke-tpu.yaml": "--devices=tpu:64",
}


@pytest.mark.parametrize("name", CASES)
def test_every_place_runs_the_same_train_command(name):
    *typed, _, _ = COMMON
    config = typed.pop(0).removeprefix("--config=")
    commands = train_commands(name)
    assert commands
    for command in commands:
        assert command[:6] == ["python", "-m", "ul", "train", "--config", config]
        workdir_flag = command[6:8]
        assert [w for w in command if w.startswith("--config.")] == typed
        devices = [a for a in CASES[name] if a.startswith("--devices=")]
        devices += [OWN_DEVICES[name]] if name in OWN_DEVICES else []
        rest = command[6 + len(workdir_flag) + len(typed) :]
        assert rest[: len(devices) + 1] == [*devices, "--max_attempts=5"]
        workdir = next(a for a in CASES[name] if a.startswith("--workdir="))
        assert "=".join(workdir_flag) == workdir


def test_every_trial_of_a_sweep_runs_the_same_command():
    head = ["python", "-m", "ul", "sweep", SWEEP[0], "--out"]
    (array,) = train_commands("sweep-slurm.sh")
    assert array[:6] == head
    assert array[6:] == [
        "/shared/sweep",
        "--set=seed=1",
        "--devices=gpu:1",
        "--max_attempts=5",
    ]
    text = (GOLDEN / "sweep-slurm.sh").read_text()
    names = [f"factor{f}" for f in (1.3, 1.5, 1.7, 1.9, 2.1)]
    assert re.findall(r"trial=\(--trial=(.*)\)", text) == names
    text = (GOLDEN / "sweep-gke.yaml").read_text()
    lists = re.findall(r"command:\n(( +- .*\n)+)", text)
    commands = [re.findall(r'- "(.*)"', listed) for listed, _ in lists]
    # Without --devices on the command line, they are those of the place.
    options = ["--max_attempts=5", "--devices=gpu:8"]
    ends = [[*options, f"--trial={name}"] for name in (names[0], names[-1])]
    assert commands == [[*head, "gs://bucket/sweep", *end] for end in ends]


def test_a_trial_that_does_not_fit_into_the_place_is_not_submitted():
    words = [*SWEEP, *SWEEPS["sweep-gke.yaml"], "--set=mesh.fsdp=3"]
    (done,) = forks.run_all([["sweep", *words]])
    assert done.code == ConfigError.code
    assert "must equal the number of devices, 8" in done.err and not done.out


BREAKS = (
    Break(
        "a sweep that is not compared with its place",
        "launch/sweep.py",
        "        sweep_jobs.check(_job(out, file), place, chosen)\n",
        "        pass\n",
        "test_a_trial_that_does_not_fit_into_the_place_is_not_submitted",
    ),
    Break(
        "unquoted words in a job script",
        "launch/lib/templates.py",
        "[shlex.quote(word) for word in words]",
        "list(words)",
        "test_the_dry_run_is_the_golden_file",
    ),
)
