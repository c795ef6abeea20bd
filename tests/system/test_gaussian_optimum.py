"""Trained networks on Gaussian data against the exact optimum, by the user's commands."""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAIRS = ((1.5, 4.0), (2.0, 4.0), (2.5, 4.0))


def command(module, *args):
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "ul", module, *args], cwd=ROOT, env=env, check=True
    )


@pytest.mark.slow
def test_rate_and_distortion_reach_the_optimum(tmp_path):
    """Three pairs, rates from 0.2 to 0.8 bits/pixel: within 10 % and 0.5 dB."""

    def trained(pair):
        factor, bias = pair
        workdir = tmp_path / f"c{factor}b{bias}"
        command(
            "train",
            f"--config={ROOT / 'experiments' / 'gaussian.py'}:stage1",
            f"--workdir={workdir}",
            f"--config.loss.weighting.factor={factor}",
            f"--config.loss.weighting.bias={bias}",
        )
        command("evaluate", f"--workdir={workdir}")
        (record,) = (workdir / "evals").glob("*.json")
        return json.loads(record.read_text())

    # Small networks: two at a time are faster than one on two cores.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(trained, PAIRS))
    for record in found:
        assert 0.2 <= record["optimum_bpp"] <= 1.5
        assert abs(record["rate_bpp"] / record["optimum_bpp"] - 1) < 0.1, record
        gap = record["pooled_psnr_db"] - record["optimum_psnr_db"]
        assert abs(gap) < 0.5, record
    # The rate rises with the factor.
    rates = [record["rate_bpp"] for record in found]
    assert rates[0] < rates[1] < rates[2]
