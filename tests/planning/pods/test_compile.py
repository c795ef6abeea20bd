"""The dry run on virtual CPU devices: no gathered activations, words, exit codes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.planning.pods import chips, compile, report, roofline, search, topology
from ul.planning.pods.topology import Topology
from ul.stages import registry
from ul.train import loop

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "experiments" / "digits.py"


def small():
    """Stage 2 of digits, scanned, of two blocks; its weights are split eight ways."""
    plain = registry.to_dict(
        importlib.import_module("experiments.digits").get_config("stage2")
    )
    plain["base"] |= {"depths": (2,), "scan": True, "remat": "dots"}
    return registry.parse(plain | {"mesh": {"data": 1, "fsdp": 8}})


def cpus(chip=None):
    return Topology("cpu:8", (8,), jax.devices()[:8], chip)


@pytest.fixture(scope="module")
def plan():
    return compile.plan(small(), cpus())


def test_fsdp_gathers_parameters_and_no_activations(plan):
    assert plan.program.gathered_activations == ()
    # Eight times their shards, in float32, forward and backward.
    least = plan.least["all-gather"]
    assert least / 2 < plan.program.sent["all-gather"] <= least


def test_without_constraints_activations_are_gathered_and_that_is_seen(monkeypatch):
    monkeypatch.setattr(meshes, "gather_parameter", lambda kernel: kernel)
    assert compile.plan(small(), cpus()).program.gathered_activations


def test_a_plan_counts_what_there_is(plan):
    assert plan.parameters == 664_452
    assert plan.model_flops == plan.closed_flops < plan.run_flops
    assert plan.program.arguments < plan.peak
    assert plan.missing == 0 and plan.images_per_second == 0.0


V5E = chips.CHIPS["v5e"]


def too_large(monkeypatch, message):
    """The plan of a step whose compiler says `message`, as libtpu words it."""

    def lower(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(loop, "lower_step", lower)
    return compile.plan(small(), cpus(V5E))


OUT_OF_MEMORY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (92.40G) exceeds available HBM (15.75G)."
)


def test_what_does_not_fit_is_a_row_with_what_is_missing(monkeypatch):
    made = too_large(monkeypatch, OUT_OF_MEMORY)
    assert report.verdict(made) == "does not fit, 76.65 GiB missing"
    assert "does not fit, 76.65 GiB missing" in report.one(made)
    cells = report.row(made)
    assert len(cells) == len(report.HEAD) and "92.40 GiB" in cells
    assert made.images_per_second == 0.0


def test_another_compiler_error_is_not_taken_for_memory(monkeypatch):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        too_large(monkeypatch, "INTERNAL: (92.40G) exceeds available HBM (15.75G)")


def test_memory_errors_are_read_in_their_units():
    used = "RESOURCE_EXHAUSTED: ... Used 512.50M of 15.75G hbm. Exceeded hbm capacity"
    assert compile.bytes_needed(used) == round(512.5 * 2**20)
    assert compile.bytes_needed(OUT_OF_MEMORY) == round(92.4 * 2**30)
    assert compile.bytes_needed("RESOURCE_EXHAUSTED: a quota") == 0


def test_times_are_counts_over_the_data_sheet():
    got = roofline.estimate(
        flops=200, traffic=300, sent=60, peak=100.0, bandwidth=100.0, egress=20.0
    )
    assert (got.compute, got.memory, got.interconnect) == (2.0, 3.0, 3.0)
    assert (got.step, got.in_turn) == (3.0, 8.0)
    alone = roofline.estimate(
        flops=1, traffic=1, sent=0, peak=1.0, bandwidth=1.0, egress=0.0
    )
    assert alone.interconnect == 0.0  # one chip has no links


@pytest.mark.parametrize(
    ("chip", "sides", "links"),
    [("v5p", (4, 4, 4), 6), ("v5p", (2, 2, 1), 2), ("v6e", (16, 16), 4),
     ("v5e", (2, 2), 2), ("v5e", (1, 1), 0), ("v5e", (8, 16), 3)],
)  # fmt: skip
def test_links_of_a_torus_closed_or_not(chip, sides, links):
    made = chips.CHIPS[chip]
    assert chips.egress(made, sides) == links * made.link_bandwidth


@pytest.mark.parametrize("name", chips.CHIPS)
def test_data_sheets_are_in_their_units(name):
    """FLOP/byte between 80 and 600, memory of 10 to 200 GiB, links under memory."""
    chip = chips.CHIPS[name]
    assert 80 < chip.flops / chip.memory_bandwidth < 600
    assert 10 < chip.memory_gib < 200
    assert chip.link_bandwidth < chip.memory_bandwidth / 5


def test_a_search_tries_all_and_proposes_the_fastest_that_fits(monkeypatch):
    parsed = small()

    def planned(one, where):
        """Twice the batch is a little more than twice as fast, but too large."""
        a_chip, remat = one.batch_size // 8, one.base["remat"]
        seconds = a_chip**0.9 * {"none": 1.0, "dots": 1.02, "full": 1.3}[remat]
        gib = a_chip * {"none": 1.0, "dots": 0.7, "full": 0.4}[remat]
        times = roofline.Estimate(seconds, 0.0, 0.0)
        sent = dict.fromkeys(report.collectives.KINDS, 0)
        return compile.Plan(
            one, where, 1, 1, 1, 1, sent, round(gib * 2**30), 1.0, None, times
        )

    monkeypatch.setattr(search, "plan", planned)
    text = search.best(
        parsed, cpus(V5E), [(1, 8), (2, -1)], ["none", "dots", "full"], [8, 16, 32]
    )
    assert text.count("\n| ") == 18 and text.count("GiB missing") == 2 * 3
    assert "--config.batch_size=128\n" in text  # dots, 16 a chip, at 11.2 GiB
    assert "--config.base.remat=dots" in text and "--config.mesh.fsdp=8" in text


def test_a_search_names_a_policy_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"--remat has \['some'\]; known are"):
        search.candidates(small(), 8, [(1, 8)], ["some"], [])


def test_without_batches_half_once_and_twice_the_config():
    tried = search.candidates(small(), 8, [(-1, 4)], ["none"], [])
    assert [c.batch_size for c in tried] == [32, 64, 128]
    assert {(c.mesh.data, c.mesh.fsdp) for c in tried} == {(2, 4)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "give one as v5p:4x4x4"),
        ("v5p", "give one as v5p:4x4x4"),
        ("v5p:4x", "give one as v5p:4x4x4"),
        ("h100:16", "one node alone, at most 8"),
        ("cpu:512", "JAX started with 8"),
    ],
)
def test_topologies_that_cannot_be_are_one_line(name, message):
    with pytest.raises(ConfigError, match=message) as e:
        topology.of(name)
    assert "\n" not in str(e.value)


def test_a_missing_libtpu_names_the_extra(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs libtpu.*\.\[tpu\]"):
        topology.of("v5e:2x2")
    with pytest.raises(ConfigError, match="--no-deps jax-cuda13-plugin=="):
        topology.of("h200:8")


def command(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "launch.plan", "pod", *args],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
    )


def test_the_command_plans_for_virtual_devices():
    done = command(
        f"--config={DIGITS}:smoke2", "--topology=cpu:4", "--mesh=data=2,fsdp=2"
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "| cpu:4 ",
        "data=2 x fsdp=2",
        "+0.000% off",
        "| activations gathered",
    ):
        assert said in done.stdout
    assert "compiling for cpu:4" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--mesh=fsdp=2,model=2",), "--mesh is 'fsdp=2,model=2'"),
        (("--mesh=fsdp=2", "--mesh=fsdp=4"), "with --search alone"),
        (("--batch_per_chip=0", "--search"), "--batch_per_chip is"),
        ((), "--topology is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_arguments_that_cannot_be_are_one_line(monkeypatch, capsys, args, message):
    from absl import flags

    from launch import plan
    from launch.lib import cli

    argv = ["plan", "pod", f"--config={DIGITS}:smoke2", *args]
    monkeypatch.setattr(sys, "argv", argv)
    try:
        with pytest.raises(SystemExit) as e:
            cli.run(plan.COMMANDS)
    finally:
        for name in ("mesh", "batch_per_chip", "search"):
            flags.FLAGS[name].unparse()
        flags.FLAGS.mark_as_parsed()
    said = capsys.readouterr().err.strip()
    assert e.value.code == 64 and message in said and "\n" not in said


@pytest.mark.slow
@pytest.mark.tpu_aot
def test_the_command_plans_for_a_tpu_that_is_not_here():
    pytest.importorskip("libtpu")
    done = command(
        f"--config={DIGITS}:stage1", "--topology=v5e:2x2", "--mesh=fsdp=4", XLA_FLAGS=""
    )
    assert done.returncode == 0, done.stderr
    assert "| **fits**" in done.stdout and "| reduce-scatter" in done.stdout
    assert "each gather is of a parameter" in done.stdout


@pytest.mark.slow
@pytest.mark.tpu_aot
def test_a_tpu_step_too_large_says_what_is_missing():
    pytest.importorskip("libtpu")
    done = command(
        f"--config={DIGITS}:stage2", "--topology=v5e:2x2", "--config.batch_size=4194304",
        "--config.mesh.fsdp=4", XLA_FLAGS="",
    )  # fmt: skip
    assert done.returncode == 64 and "Traceback" not in done.stderr
    assert "does not fit" in done.stdout and "GiB missing" in done.stderr


@pytest.mark.slow
def test_the_command_plans_for_gpus_that_are_not_here():
    pytest.importorskip("jax_cuda13_plugin")
    done = command(
        f"--config={DIGITS}:stage2", "--topology=h100:8", "--mesh=fsdp=8", XLA_FLAGS=""
    )
    assert done.returncode == 0, done.stderr
    assert "| **fits**" in done.stdout and "| reduce-scatter" in done.stdout
