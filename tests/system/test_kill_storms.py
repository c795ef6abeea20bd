"""Commands that are killed at random moments, many times, end as undisturbed ones do.

Half an hour on one core: `make slow K=storm`. Undisturbed and killed commands must run
on the same CPUs, because other numbers of threads round in another way.
"""

import contextlib
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from tests.lib.commands import DIGITS, digests, stage1

pytestmark = pytest.mark.slow
SWEEP = """
from experiments import sweeps

def get_sweep():
    return sweeps.trials(
        sweeps.grid("loss.weighting.factor", (1.5,)),
        stage1="experiments/digits.py:smoke",
        fixed={"both:log.tensorboard": False},
    )
"""


def run(command, args, seconds=None):
    """Run a command; kill it and what it started after some seconds. Return if it ended."""
    process = command.start(*args, prefix=("setsid",))
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0, output
    return True


def storm(command, kills, folder, arguments, result):
    """Kill a command at random moments until it ended, again and again.

    arguments(out): the words of the command. result(out): what must be the same.
    """
    whole = folder / "whole"
    start = time.monotonic()
    assert run(command, arguments(whole))
    longest, expected = time.monotonic() - start, result(whole)
    random_numbers, killed, rounds = random.Random(0), 0, 0
    while killed < kills:
        out = folder / f"killed-{rounds}"
        while not run(
            command, arguments(out), random_numbers.uniform(0.3, 1.0) * longest
        ):
            killed += 1
        assert result(out) == expected, f"after {killed} kills"
        rounds += 1
    print(f"{killed} kills, {rounds} times to the end, {longest:.1f} s undisturbed")


def read_files(out):
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_storm_of_stage_1(command, tmp_path):
    def arguments(out):
        return (*stage1(out), "--max_attempts=1000")

    storm(command, 50, tmp_path, arguments, digests)


def test_storm_of_stage_2(trained, command, tmp_path):
    def arguments(out):
        below = f"--config.stage1.workdir={trained / 'smoke'}"
        return (*stage1(out, below, variant="smoke2"), "--max_attempts=1000")

    storm(command, 25, tmp_path, arguments, digests)


def test_storm_of_encoding(trained, command, tmp_path):
    def arguments(out):
        below = f"--config.stage1.workdir={trained / 'smoke'}"
        words = ("encode", f"--config={DIGITS}:smoke2", below, f"--out={out}")
        return (*words, "--shard_examples=20")

    storm(command, 25, tmp_path, arguments, read_files)


def test_storm_of_an_import(command, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(900):
        folder = tmp_path / "images" / ("eval" if i % 9 == 0 else "train") / f"c{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (90, 70, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")

    def arguments(out):
        sources = (
            f"--{part}={tmp_path / 'images' / part}" for part in ("train", "eval")
        )
        words = ("import_images", *sources, f"--out={out}", "--size=256")
        return (*words, "--shard_examples=20", "--jobs=1")

    storm(command, 25, tmp_path, arguments, read_files)


def test_storm_of_a_sweep(command, tmp_path):
    (tmp_path / "one.py").write_text(SWEEP)

    def arguments(out):
        return ("sweep", tmp_path / "one.py", f"--out={out}", "--jobs=1")

    def result(out):
        stage = out / "factor1.5" / "stage1"
        assert list((stage / "evals").glob("reconstruction-8-*.json"))
        assert (out / "factor1.5" / "DONE.json").exists()
        return digests(stage)

    storm(command, 25, tmp_path, arguments, result)
