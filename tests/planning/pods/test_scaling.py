"""The prediction for several slices, from the plan of one."""

import dataclasses

import jax
import pytest

from tests.lib.breaks import Break
from tests.planning.pods.test_compile import small_spec
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.planning.pods import chips, compile, roofline, scaling, topology
from ul.planning.pods.topology import Topology

V5P = chips.CHIPS["v5p"]


def plan_of_one_slice(network_seconds):
    """Return a plan whose gradients take a ring of endless slices this long."""
    pod = Topology("v5p:2x2x2", (2, 2, 2), jax.devices()[:8], V5P)
    share = network_seconds / 2 * V5P.network_bandwidth
    return compile.PodPlan(
        spec=small_spec(),
        topology=pod,
        num_parameters=round(share * 8 / 4),
        model_flops=1,
        closed_form_flops=1,
        computed_flops=1,
        minimum_sent_bytes={},
        step_time=roofline.StepTime(0.05, 0.03, 0.01, 0.01),
    )


def test_a_ring_of_slices_sends_each_chips_share_almost_twice():
    plan = plan_of_one_slice(0.02)
    for slices, seconds in ((1, 0.0), (2, 0.01), (4, 0.015), (64, 0.02 * 63 / 64)):
        time = scaling.step_time_on(plan, slices)
        assert time.network == pytest.approx(seconds, rel=1e-6)
        assert dataclasses.replace(time, network=0.0) == plan.step_time


def test_the_table_hides_the_network_until_it_is_the_slowest():
    hidden = scaling.scaling_table(plan_of_one_slice(0.04), [1, 64]).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in hidden]
    alone, many = cells[2:]
    batch = small_spec().batch_size
    assert alone == ["1", "8", f"{batch}", "0 ms", "1,280", "640", "100.0%"]
    assert many[:3] == ["64", "512", f"{64 * batch}"]
    assert many[4] == "81,920" and many[6] == "71.7%"
    exposed = scaling.scaling_table(plan_of_one_slice(0.2), [64])
    assert "20,805" in exposed  # 64 x 64 images in 0.2 * 63 / 64 seconds
    assert "v5p:2x2x2" in scaling.assumptions(plan_of_one_slice(0.2))


class SliceDevice:
    """A device with the attributes that the creation of a mesh reads."""

    platform, device_kind, process_index = "tpu", "TPU v5", 0

    def __init__(self, number, slice_index):
        self.id, self.slice_index = number, slice_index


def test_fsdp_stays_within_a_slice():
    devices = [SliceDevice(i, i // 4) for i in range(8)]
    assert meshes.count_slices(devices) == 2
    nodes = [SliceDevice(i, i // 4) for i in range(8)]
    for gpu in nodes:
        gpu.platform = "gpu"
    assert meshes.count_slices(nodes) == 1  # fsdp may cross nodes of GPUs
    assert meshes.count_slices(jax.devices()) == 1
    with pytest.raises(ConfigError, match="multiple of the number of slices, 2") as e:
        meshes.make(1, 8, devices)
    assert "\n" not in str(e.value)


@pytest.mark.slow
@pytest.mark.tpu_aot
def test_two_slices_reduce_gradients_and_gather_nothing_between_them():
    pytest.importorskip("libtpu")
    pod = topology.parse_topology("v5p:2x2x1", slices=2)
    mesh = meshes.make(-1, 2, pod.devices)
    assert [d.slice_index for d in mesh.devices[:, 0]] == [0, 0, 1, 1]
    plan = compile.make_plan(small_spec().with_mesh(2, 4, 8), pod)
    assert plan.step.gathered_across_slices == ()
    minimum = plan.minimum_network_bytes
    assert minimum <= 1.01 * plan.step.network_bytes <= 2 * minimum


BREAKS = (
    Break(
        "fsdp over the network between slices",
        "ul/core/mesh.py",
        "if data % slices:",
        "if False:",
        "test_fsdp_stays_within_a_slice",
    ),
    Break(
        "gradients that cross the network once for every chip",
        "ul/planning/pods/scaling.py",
        "* gradient_bytes(plan) / plan.num_chips",
        "* gradient_bytes(plan)",
        "test_a_ring_of_slices_sends_each_chips_share_almost_twice",
    ),
)
