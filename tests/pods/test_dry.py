"""The dry run on virtual CPU devices: no gathered activations, words, exit codes."""

import importlib
from pathlib import Path

import jax
import pytest

from ul import build, config
from ul.core import mesh as meshes
from ul.pods import dry
from ul.pods.topology import Topology

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "experiments" / "digits.py"


def small():
    """Stage 2 of digits, scanned, of two blocks; its weights are split eight ways."""
    plain = build.plain(
        importlib.import_module("experiments.digits").get_config("stage2")
    )
    plain["base"] |= {"depths": (2,), "scan": True, "remat": "dots"}
    return config.parse(plain | {"mesh": {"data": 1, "fsdp": 8}})


def cpus(chip=None):
    return Topology("cpu:8", (8,), jax.devices()[:8], chip)


@pytest.fixture(scope="module")
def plan():
    return dry.plan(small(), cpus())


def test_fsdp_gathers_parameters_and_no_activations(plan):
    assert plan.program.gathered_activations == ()
    # Eight times their shards, in float32, forward and backward.
    least = plan.least["all-gather"]
    assert least / 2 < plan.program.sent["all-gather"] <= least


def test_without_constraints_activations_are_gathered_and_that_is_seen(monkeypatch):
    monkeypatch.setattr(meshes, "gathered", lambda kernel: kernel)
    assert dry.plan(small(), cpus()).program.gathered_activations


def test_a_plan_counts_what_there_is(plan):
    assert plan.parameters == 664_452
    assert plan.model_flops == plan.closed_flops < plan.run_flops
    assert plan.program.arguments < plan.peak
    assert plan.missing == 0 and plan.images_per_second == 0.0
