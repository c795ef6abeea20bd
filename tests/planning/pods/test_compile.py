"""The dry run on virtual CPU devices: gathers, tables, messages and exit codes."""

import dataclasses
import importlib
import os
from pathlib import Path

import jax
import pytest

from tests.lib import forks, untrained
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.planning.pods import (
    chips,
    compile,
    model_flops,
    report,
    roofline,
    search,
    topology,
)
from ul.planning.pods.topology import Topology
from ul.runs.train_spec import TrainSpec
from ul.stages import registry
from ul.train import loop

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "experiments" / "digits.py"


def small_spec():
    """Return a stage 2 of digits with two scanned blocks, sharded over eight devices."""
    settings = registry.to_dict(
        importlib.import_module("experiments.digits").get_config("stage2")
    )
    settings["base"] |= {"depths": (2,), "scan": True, "remat": "dots"}
    return TrainSpec(registry.parse(settings | {"mesh": {"data": 1, "fsdp": 8}}))


def cpu_topology(chip=None):
    return Topology("cpu:8", (8,), jax.devices()[:8], chip)


@pytest.fixture(scope="module")
def plan():
    return compile.make_plan(small_spec(), cpu_topology())


def test_fsdp_gathers_parameters_and_no_activations(plan):
    assert plan.step.gathered_activations == ()
    # The minimum gathers the float32 parameters twice, forward and backward.
    minimum = plan.minimum_sent_bytes["all-gather"]
    assert minimum / 2 < plan.step.sent_bytes["all-gather"] <= minimum


def test_activations_that_are_gathered_without_constraints_are_reported(monkeypatch):
    monkeypatch.setattr(meshes, "gather_parameter", lambda kernel: kernel)
    plan = compile.make_plan(small_spec(), cpu_topology())
    assert plan.step.gathered_activations


def test_a_plan_counts_parameters_flops_and_memory(plan):
    assert plan.num_parameters == 664_452
    assert plan.model_flops == plan.closed_form_flops < plan.computed_flops
    assert plan.step.argument_bytes < plan.peak_bytes
    assert plan.missing_bytes == 0 and plan.images_per_second == 0.0


V5E = chips.CHIPS["v5e"]


def plan_with_compiler_error(monkeypatch, message):
    """Plan a step for which the compiler raises an error with this message."""

    def lower(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(loop, "lower_step", lower)
    return compile.make_plan(small_spec(), cpu_topology(V5E))


# In the words of libtpu.
OUT_OF_MEMORY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (92.40G) exceeds available HBM (15.75G)."
)


def test_a_step_that_does_not_fit_is_a_row_with_the_missing_memory(monkeypatch):
    plan = plan_with_compiler_error(monkeypatch, OUT_OF_MEMORY)
    assert report.memory_verdict(plan) == "does not fit, 76.65 GiB missing"
    assert "does not fit, 76.65 GiB missing" in report.format_plan(plan)
    cells = report.search_row(plan)
    assert len(cells) == len(report.SEARCH_HEADER) and "92.40 GiB" in cells
    assert plan.images_per_second == 0.0


def test_other_compiler_errors_are_raised(monkeypatch):
    message = "INTERNAL: (92.40G) exceeds available HBM (15.75G)"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan_with_compiler_error(monkeypatch, message)


def test_memory_errors_are_parsed_in_their_units():
    used = "RESOURCE_EXHAUSTED: ... Used 512.50M of 15.75G hbm. Exceeded hbm capacity"
    assert compile.parse_out_of_memory(used) == round(512.5 * 2**20)
    assert compile.parse_out_of_memory(OUT_OF_MEMORY) == round(92.4 * 2**30)
    assert compile.parse_out_of_memory("RESOURCE_EXHAUSTED: a quota") == 0


def test_times_are_counts_over_peak_rates():
    chip = dataclasses.replace(
        V5E,
        flops=100.0,
        vector_rate=50.0,
        memory_bandwidth=100.0,
        network_bandwidth=4.0,
    )
    counts = dict(flops=200, traffic_bytes=300, vector_operations=200, sent_bytes=60)
    time = roofline.estimate_step_time(
        **counts, network_bytes=2, chip=chip, egress_bandwidth=20.0
    )
    assert dataclasses.astuple(time) == (2.0, 3.0, 4.0, 3.0, 0.5)
    assert (time.step, time.without_overlap) == (4.0, 12.5)
    single_chip = roofline.estimate_step_time(
        **counts, network_bytes=0, chip=chip, egress_bandwidth=0.0
    )
    assert single_chip.interconnect == single_chip.network == 0.0


@pytest.mark.parametrize(
    ("chip", "sides", "links"),
    [("v5p", (4, 4, 4), 6), ("v5p", (2, 2, 1), 2), ("v6e", (16, 16), 4),
     ("v5e", (2, 2), 2), ("v5e", (1, 1), 0), ("v5e", (8, 16), 3)],
)  # fmt: skip
def test_sides_of_a_torus_are_rings_or_lines(chip, sides, links):
    chip = chips.CHIPS[chip]
    assert chips.egress_bandwidth(chip, sides) == links * chip.link_bandwidth


@pytest.mark.parametrize("name", chips.CHIPS)
def test_data_sheets_are_in_their_units(name):
    """A wrong unit would leave these ranges."""
    chip = chips.CHIPS[name]
    assert 80 < chip.flops / chip.memory_bandwidth < 600
    assert 10 < chip.flops / chip.vector_rate < 200
    assert 2 < chip.link_bandwidth / chip.network_bandwidth < 30
    assert 10 < chip.memory_gib < 200
    assert chip.link_bandwidth < chip.memory_bandwidth / 5


def test_a_search_tries_all_and_proposes_the_fastest_that_fits(monkeypatch):
    def make_plan(candidate, topology):
        """A step of twice the batch takes a little less than twice the time."""
        batch, policy = candidate.batch_size // 8, candidate.remat["base"]
        seconds = batch**0.9 * {"none": 1.0, "dots": 1.02, "full": 1.3}[policy]
        gib = batch * {"none": 1.0, "dots": 0.7, "full": 0.4}[policy]
        return compile.PodPlan(
            spec=candidate,
            topology=topology,
            num_parameters=1,
            model_flops=1,
            closed_form_flops=1,
            computed_flops=1,
            minimum_sent_bytes=dict.fromkeys(report.collectives.KINDS, 0),
            peak_bytes=round(gib * 2**30),
            compile_seconds=1.0,
            step_time=roofline.StepTime(seconds, 0.0, 0.0, 0.0),
        )

    monkeypatch.setattr(search, "make_plan", make_plan)
    text = search.run_search(
        small_spec(),
        cpu_topology(V5E),
        [(1, 8), (2, -1)],
        ["none", "dots", "full"],
        [8, 16, 32],
    )
    assert text.count("\n| ") == 18 and text.count("GiB missing") == 2 * 3
    # With remat dots, 16 examples per chip need 11.2 GiB of the 15.75 GiB.
    assert "--config.batch_size=128\n" in text
    assert "--config.base.remat=dots" in text and "--config.mesh.fsdp=8" in text


def test_a_search_refuses_an_unknown_remat_policy():
    with pytest.raises(ConfigError, match="--remat must be .*none.*; got some"):
        search.candidate_specs(small_spec(), 8, [(1, 8)], ["some"], [])


def test_a_search_without_batches_tries_half_once_and_twice_the_configs():
    specs = search.candidate_specs(small_spec(), 8, [(-1, 4)], ["none"], [])
    assert [spec.batch_size for spec in specs] == [32, 64, 128]
    assert {spec.mesh_axes for spec in specs} == {(2, 4)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "such as v5p:4x4x4 .* got 'v9:2x2'"),
        ("v5p", "such as v5p:4x4x4 .* got 'v5p'"),
        ("v5p:4x", "such as v5p:4x4x4 .* got 'v5p:4x'"),
        ("h100:16", "one node of at most 8 GPUs"),
        ("cpu:512", "JAX has already started with 8"),
    ],
)
def test_impossible_topologies_are_refused_in_one_line(name, message):
    jax.devices()  # the number of virtual devices cannot change after this
    with pytest.raises(ConfigError, match=message) as e:
        topology.parse_topology(name)
    assert "\n" not in str(e.value)


def test_a_missing_compiler_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs libtpu.*\.\[tpu\]"):
        topology.parse_topology("v5e:2x2")
    with pytest.raises(ConfigError, match="--no-deps jax-cuda13-plugin=="):
        topology.parse_topology("h200:8")


def run_plan_pod(*args, **environment):
    (done,) = forks.run_all([["plan", "pod", *args]], env=os.environ | environment)
    return done


def test_the_command_plans_for_virtual_devices():
    done = run_plan_pod(
        f"--config={DIGITS}:smoke2",
        "--topology=cpu:4",
        "--mesh=data=2,fsdp=2",
        f"--stage1_config={DIGITS}:smoke",
    )
    assert done.code == 0, done.err
    for text in (
        "| cpu:4 ",
        "| online encoder",
        "data=2 x fsdp=2",
        "differs by +0.000%",
        "| activations gathered",
    ):
        assert text in done.out
    assert "compiling for cpu:4" in done.err


def test_encoding_while_training_has_a_row_of_its_own(plan):
    chip = chips.CHIPS["v5p"]
    topology = dataclasses.replace(plan.topology, chip=chip)
    attached = dataclasses.replace(plan, topology=topology)
    flops = 2e-3 * chip.flops * attached.num_chips
    rows = report.format_plan(attached, flops).splitlines()
    (row,) = (row for row in rows if "online encoder" in row)
    assert "| 2 ms" in row
    assert "online encoder" not in report.format_plan(plan)


def test_the_targets_of_a_student_have_a_row_of_their_own(plan):
    spec = TrainSpec(untrained.parsed("digits", "distill"))
    (row,) = (
        row
        for row in report.format_plan(dataclasses.replace(plan, spec=spec)).splitlines()
        if "targets of the teacher" in row
    )
    each = model_flops.flops_by_network(spec.stage)["decoder"].forward
    assert report.format_flops(3 * each * spec.batch_size) in row
    assert "targets of the teacher" not in report.format_plan(plan)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--mesh=fsdp=2,model=2",), "got 'fsdp=2,model=2'"),
        (("--mesh=fsdp=2", "--mesh=fsdp=4"), "require --search"),
        (("--batch_per_chip=0", "--search"), "--batch_per_chip must be"),
        ((), "--topology is required"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(command, args, message):
    out = command("plan", "pod", f"--config={DIGITS}:smoke2", *args, code=64).strip()
    assert message in out and "\n" not in out


@pytest.mark.slow
@pytest.mark.tpu_aot
def test_the_command_plans_for_a_tpu_that_is_not_attached():
    pytest.importorskip("libtpu")
    done = run_plan_pod(
        f"--config={DIGITS}:stage1", "--topology=v5e:2x2", "--mesh=fsdp=4", XLA_FLAGS=""
    )
    assert done.code == 0, done.err
    assert "| **fits**" in done.out and "| reduce-scatter" in done.out
    assert "only parameters are gathered" in done.out


@pytest.mark.slow
@pytest.mark.tpu_aot
def test_the_command_reports_the_memory_that_a_tpu_lacks():
    pytest.importorskip("libtpu")
    done = run_plan_pod(
        f"--config={DIGITS}:stage2", "--topology=v5e:2x2", "--config.batch_size=4194304",
        "--config.mesh.fsdp=4", XLA_FLAGS="",
    )  # fmt: skip
    assert done.code == 64 and "Traceback" not in done.err
    assert "does not fit" in done.out and "GiB missing" in done.err


@pytest.mark.slow
def test_the_command_plans_for_gpus_that_are_not_attached():
    pytest.importorskip("jax_cuda13_plugin")
    done = run_plan_pod(
        f"--config={DIGITS}:stage2", "--topology=h100:8", "--mesh=fsdp=8", XLA_FLAGS=""
    )
    assert done.code == 0, done.err
    assert "| **fits**" in done.out and "| reduce-scatter" in done.out
