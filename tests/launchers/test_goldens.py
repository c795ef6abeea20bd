"""What `--dry-run` prints, place by place. After a wanted change: `make goldens`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    "slurm-array.sh": [*SLURM, f"--trials={GOLDEN}/trials.txt", "--at_once=2"],
    "gke-tpu.yaml": [*GKE, "--accelerator=tpu-v5p-slice", "--topology=4x4x4"],
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


def dry_run(place, *args):
    done = subprocess.run(
        [sys.executable, "-m", "launch.submit", place, *args, *COMMON],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(ROOT), "/repo")


@pytest.mark.parametrize("name", CASES)
def test_the_dry_run_is_the_golden_file(name):
    printed = dry_run(*CASES[name])
    if os.environ.get("UPDATE_GOLDENS"):
        (GOLDEN / name).write_text(printed)
    assert printed == (GOLDEN / name).read_text()


def train_commands(name):
    """Every train command of a golden file, a list of words each."""
    text = (GOLDEN / name).read_text()
    if name.endswith(".yaml"):
        listed = re.search(r"command:\n(( +- .*\n)+)", text)[1]
        return [re.findall(r'- "(.*)"', listed)]
    if name.startswith("local"):
        found = re.findall(r"python -m .*(?= >>)", text)
    else:
        found = re.findall(r"train=\(\n(.*?)\n\)", text, re.S)
    shell = ["bash", "-c", 'eval "words=($1)"; printf "%s\\n" "${words[@]}"', "-"]
    return [subprocess.check_output([*shell, f], text=True).splitlines() for f in found]


@pytest.mark.parametrize("name", CASES)
def test_the_same_train_command_stands_everywhere(name):
    *typed, _, _ = COMMON
    config = typed.pop(0).removeprefix("--config=")
    commands = train_commands(name)
    assert commands
    for command in commands:
        assert command[:5] == ["python", "-m", "launch.train", "--config", config]
        workdirs = [] if "array" in name else command[5:7]
        assert [w for w in command if w.startswith("--config.")] == typed
        asked = [a for a in CASES[name] if a.startswith("--devices=")]
        rest = command[5 + len(workdirs) + len(typed) :]
        assert rest[: len(asked) + 1] == [*asked, "--max_attempts=5"]
        if workdirs:
            where = next(a for a in CASES[name] if a.startswith("--workdir="))
            assert "=".join(workdirs) == where
