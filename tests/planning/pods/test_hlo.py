"""HLO as compilers print it: loops, collectives in all their forms, and traffic."""

import jax
import jax.numpy as jnp
import pytest

from ul.core import mesh as meshes
from ul.planning.pods import collectives, hlo, traffic, vector_work

# Shortened output of the TPU compiler for v5e and v5p, and of XLA for CPU and GPU.
LOOPS = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%cond (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  %bound = s32[]{:T(128)} constant(16)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%async_start (a: bf16[96,144]) -> (bf16[96,144], bf16[96,576]) {
  %a = bf16[96,144]{0,1:T(8,128)(2,1)} parameter(0)
  ROOT %ag.0 = bf16[96,576]{0,1:T(8,128)(2,1)} all-gather(%a), channel_id=7, replica_groups=mesh['axis_0'=1,'axis_1'=4] {'axis_1'}, dimensions={1}, use_global_device_ids=true, frontend_attributes={chain_id="58"}
}

%all-reduce-scatter.1 (g: f32[96,576]) -> f32[96,144] {
  %g = f32[96,576]{0,1} parameter(0)
  %sum = f32[96,576]{0,1} all-reduce(%g), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %mine = f32[96,144]{0,1} dynamic-slice(%sum, %z, %at), dynamic_slice_sizes={96,144}
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  %w = bf16[96,144]{0,1} parameter(1)
  %started = (bf16[96,144], bf16[96,576]) fusion(%w), kind=kCustom, calls=%async_start
  %beside = bf16[96,576]{0,1} all-gather(%w), channel_id=7, replica_groups=[1,4]<=[4], dimensions={1}, frontend_attributes={chain_id="58"}
  %scattered = f32[96,144]{0,1} fusion(%started), kind=kCustom, calls=%all-reduce-scatter.1
  %norms = f32[96]{0} all-reduce(%n), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, f32[8]{0}) tuple(%p, %p)
}

ENTRY %main.1_spmd (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %loop = (s32[], f32[8]) while(%t), condition=%cond, body=%body, metadata={op_name="jit(step)/while"}
  %known = (s32[], f32[8]) while(%t), condition=%other, body=%rest, backend_config={"known_trip_count":{"n":"5"}}
  %permute = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %permuted = f32[8]{0} collective-permute-done(%permute)
  %gather = (f32[2,3]{1,0}, f32[8,3]{1,0}) all-gather-start(%x), channel_id=3, replica_groups={}, dimensions={0}
  ROOT %gathered = f32[8,3]{1,0} all-gather-done(%gather)
}

%other (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  ROOT %less = pred[] fusion(%p), kind=kLoop, calls=%unknown
}

%rest (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %rs = f32[24]{0} reduce-scatter(%p), channel_id=1, replica_groups=[2,2]<=[4], dimensions={0}, to_apply=%add
  ROOT %out.1 = (s32[], f32[8]{0}) tuple(%p, %p)
}
"""  # noqa: E501


def test_loops_are_counted_and_every_chain_once():
    operations = collectives.find_collectives(hlo.parse(LOOPS))
    by_kind = {(c.kind, c.group_size, c.count): c for c in operations}
    assert len(by_kind) == len(operations)
    assert by_kind.keys() == {
        ("all-gather", 4, 16),
        ("reduce-scatter", 4, 16),
        ("all-reduce", 4, 16),
        ("reduce-scatter", 2, 5),
        ("collective-permute", 4, 1),
        ("all-gather", 4, 1),
    }
    assert by_kind["all-gather", 4, 16].sent_bytes == 96 * 576 * 2 * 3 // 4 * 16
    assert by_kind["reduce-scatter", 4, 16].sent_bytes == 96 * 576 * 4 * 3 // 4 * 16
    assert by_kind["reduce-scatter", 2, 5].sent_bytes == 2 * 24 * 4 // 2 * 5
    assert by_kind["collective-permute", 4, 1].sent_bytes == 8 * 4
    assert by_kind["all-gather", 4, 1].sent_bytes == 8 * 3 * 4 * 3 // 4


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,1},{2,3}}, x", [0, 1]),
        ("replica_groups=[2,4]<=[8], x", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[4,2]T(1,0), x", [0, 2, 4, 6]),
        ("replica_groups={}, x", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("channel_id=1, x", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, x", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, x", [0, 4]),
        (
            "replica_groups=mesh['a'=16,'b'=1,'c'=4], device_ids=([4,16]T(1,0)) {'c'}",
            [0, 16, 32, 48],
        ),
        (
            "replica_groups=mesh['a'=2,'b'=8] {'a', 'b':(1)4}, x",
            [0, 2, 4, 6, 8, 10, 12, 14],
        ),
        ("replica_groups=mesh['a'=2,'b'=8] {'b':(2)4}, x", [0, 1, 2, 3]),
    ],
)
def test_replica_groups(text, group):
    assert collectives.first_group(text, num_devices=8) == group


# Two slices of four TPUs, and two nodes of four GPUs.
SLICES = """\
HloModule jit_step, num_partitions=8

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[16]{0} parameter(0)
  %sum = f32[16]{0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  %start = token[] after-all()
  %send.1 = (f32[16]{0}, u32[], token[]) send(%sum, %start), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.2 = (f32[4]{0}, u32[], token[]) send(%part, %start), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}
  %send.3 = (f32[16]{0}, u32[], token[]) send(%sum, %start), channel_id=4, is_host_transfer=true
  %nodes = f32[16]{0} all-reduce(%x), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %recv.1 = (f32[4]{0}, u32[], token[]) recv(%start), channel_id=1, is_host_transfer=true
  %received = (f32[4]{0}, token[]) recv-done(%recv.1), channel_id=1
  %summed = f32[4]{0} get-tuple-element(%received), index=0
  %whole = f32[16]{0} all-gather(%summed), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %moved = f32[16]{0} collective-permute(%x), source_target_pairs={{0,1},{4,5}}
  ROOT %part = f32[4]{0} slice(%sum), slice={[0:4]}
}
"""  # noqa: E501


def test_what_goes_through_the_network_between_slices_is_told_apart():
    operations = collectives.find_collectives(hlo.parse(SLICES), 2, 4)
    found = [(c.kind, c.group_size, c.crosses_slices, c.sent_bytes) for c in operations]
    assert found == [
        ("all-reduce", 4, False, 2 * 64 * 3 // 4),
        ("all-reduce", 2, True, 64),
        ("all-gather", 2, True, 16),
        ("all-reduce", 2, True, 64),
        ("all-gather", 4, False, 64 * 3 // 4),
        ("collective-permute", 8, False, 64),
    ]
    (gathered,) = [c for c in operations if c.gathered_shapes]
    assert gathered.source == "send.2"


# As the TPU compiler prints Pallas kernels: with line breaks within the attributes.
KERNEL = """\
HloModule jit_step, num_partitions=1

%fused (a: f32[8,128]) -> f32[8] {
  %a = f32[8,128]{1,0} parameter(0)
  %squares = f32[8,128]{1,0} multiply(%a, %a)
  %zero = f32[]{:T(128)} constant(0)
  ROOT %sum.1 = f32[8]{0} reduce(%squares, %zero), dimensions={1}, to_apply=%add
}

ENTRY %main (x: f32[8,128]) -> f32[8] {
  %x = f32[8,128]{1,0} parameter(0)
  %buffer = f32[4096,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %kernel.1 = (f32[8,128]{1,0}, f32[8,128]{1,0}) custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(step)/kernel"}
  %result = f32[8,128]{1,0} get-tuple-element(%kernel.1), index=0, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}
  ROOT %sums = f32[8]{0} fusion(%result), kind=kLoop, calls=%fused
}
"""  # noqa: E501


def test_what_follows_a_kernel_of_several_lines_is_counted():
    program = hlo.parse(KERNEL)
    names = [i.name for i in program.computations[program.entry]]
    assert names == ["x", "buffer", "kernel.1", "result", "sums"]
    array = 8 * 128 * 4
    assert traffic.memory_traffic(program) == 3 * array + array + 8 * 4


def test_braces_in_quotes_are_no_braces_and_open_ones_are_an_error():
    text = KERNEL.replace('op_name="jit(step)/kernel"', 'op_name="jit(step)/a{b"')
    program = hlo.parse(text)
    assert len(program.computations[program.entry]) == 5
    with pytest.raises(ValueError, match="must close its braces: .*kernel.1"):
        hlo.parse(KERNEL.replace("}}, metadata", ", metadata"))


def test_vector_operations_are_those_on_each_element():
    # One multiplication and one addition for each element, once.
    assert vector_work.vector_operations(hlo.parse(KERNEL)) == 2 * 8 * 128


def test_vector_operations_of_a_loop_count_in_each_iteration():
    x = jnp.ones((16, 128))

    def step(x, _):
        return jnp.sin(x) * 2.0, None

    def operations(length):
        function = jax.jit(lambda x: jax.lax.scan(step, x, None, length)[0])
        return vector_work.vector_operations(
            hlo.parse(function.lower(x).compile().as_text())
        )

    per_iteration = (operations(9) - operations(4)) / 5
    assert per_iteration == pytest.approx(2 * x.size, rel=0.01)


GATHERS = """\
HloModule jit_step, num_partitions=64

%write (p0: bf16[1,1024,1024], p1: bf16[1,16,1024]) -> bf16[1,1024,1024] {
  %p0 = bf16[1,1024,1024]{2,1,0} parameter(0)
  %p1 = bf16[1,16,1024]{2,1,0} parameter(1)
  %dus = bf16[1,1024,1024]{2,1,0} dynamic-update-slice(%p0, %p1, %z, %at, %z)
  ROOT %bit = bf16[1,1024,1024]{2,1,0} bitcast(%dus)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %zeros = bf16[1,1024,1024]{2,1,0} broadcast(%zero), dimensions={}
  %zeros.1 = bf16[2048,1280]{1,0} broadcast(%zero), dimensions={}
  %part = bf16[1,16,1024]{2,1,0} parameter(1)
  %rows = bf16[32,1280]{1,0} parameter(2)
  %kernel = bf16[1,1024,1024]{2,1,0} fusion(%zeros, %part), kind=kLoop, calls=%write
  %activation = bf16[2048,1280]{1,0} dynamic-update-slice(%zeros.1, %rows, %z, %at)
  %gradient = bf16[3,5]{1,0} convert(%q)
  %whole = (bf16[1,1024,1024], bf16[3,5]) all-reduce(%kernel, %gradient), channel_id=1, replica_groups=[1,64]<=[64], to_apply=%add
  %summed = bf16[2048,1280]{1,0} all-reduce(%activation), channel_id=2, replica_groups=[1,64]<=[64], to_apply=%add
  %heads = bf16[8,128,1024]{2,1,0} all-gather(%part), channel_id=3, replica_groups=[1,64]<=[64], dimensions={0}
  %half = bf16[512,1024]{1,0} all-gather(%part), channel_id=4, replica_groups=[2,32]<=[64], dimensions={0}
  %labels = s32[2048]{0} all-gather(%l), channel_id=5, replica_groups=[1,64]<=[64], dimensions={0}
  ROOT %tokens = bf16[2048,256,512]{2,1,0} all-gather(%r), channel_id=6, replica_groups=[1,64]<=[64], dimensions={0}
}
"""  # noqa: E501


def test_a_gathered_activation_is_distinguished_from_a_parameter():
    """TPUs gather over a whole torus by an all-reduce of zeros, which counts too."""
    params = {"blocks": {"kernel": jax.ShapeDtypeStruct((16, 1024, 1024), jnp.float32)}}
    mesh = jax.sharding.AbstractMesh((1, 64), meshes.AXES)
    operations = collectives.find_collectives(hlo.parse(GATHERS))
    activations = collectives.gathered_activations(operations, params, mesh)
    shapes = [c.gathered_shapes[0].dims for c in activations]
    assert shapes == [(2048, 1280), (2048, 256, 512)]


def test_the_minimum_is_two_gathers_a_scatter_and_the_sum_over_data():
    params = {
        "sharded": jax.ShapeDtypeStruct((256, 512), jnp.float32),
        "replicated": jax.ShapeDtypeStruct((100,), jnp.float32),
    }
    minimum = collectives.minimum_sent_bytes(params, meshes.make(2, 4), itemsize=2)
    sharded, replicated = 256 * 512 * 2, 100 * 2
    assert minimum["all-gather"] == 2 * sharded * 3 // 4
    assert minimum["reduce-scatter"] == sharded * 3 // 4
    assert minimum["all-reduce"] == round(2 * sharded / 4 / 2 + 2 * replicated * 7 / 8)


TRAFFIC = """\
HloModule t

%slice (a: f32[16,100], i: s32[]) -> f32[1,100] {
  %a = f32[16,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %ds = f32[1,100]{1,0} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={1,100}
}

%outer (a: f32[16,100], i: s32[]) -> f32[1,100] {
  %a.1 = f32[16,100]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %inner = f32[1,100]{1,0} fusion(%a.1, %i.1), kind=kLoop, calls=%slice
  ROOT %neg = f32[1,100]{1,0} negate(%inner)
}

%update (a: f32[16,100], u: f32[1,100], i: s32[]) -> f32[16,100] {
  %a.2 = f32[16,100]{1,0} parameter(0)
  %u = f32[1,100]{1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  ROOT %dus = f32[16,100]{1,0} dynamic-update-slice(%a.2, %u, %i.2, %i.2)
}

%cond (p: (s32[], f32[16,100])) -> pred[] {
  %p = (s32[], f32[16,100]) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%body (p: (s32[], f32[16,100])) -> (s32[], f32[16,100]) {
  %p.1 = (s32[], f32[16,100]) parameter(0)
  %at = s32[] get-tuple-element(%p.1), index=0
  %all = f32[16,100]{1,0} get-tuple-element(%p.1), index=1
  %one = f32[1,100]{1,0} fusion(%all, %at), kind=kLoop, calls=%outer
  %new = f32[16,100]{1,0} fusion(%all, %one, %at), kind=kLoop, calls=%update
  ROOT %next = (s32[], f32[16,100]) tuple(%at, %new)
}

ENTRY %main (x: f32[16,100]) -> f32[16,100] {
  %x = f32[16,100]{1,0} parameter(0)
  %fast = f32[16,100]{1,0:T(8,128)S(1)} add(%x, %x)
  %t = (s32[], f32[16,100]) tuple(%c, %x)
  %loop = (s32[], f32[16,100]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"16"}}
  ROOT %y = f32[16,100]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_traffic_counts_slices_updates_and_loops():
    """Each of 16 iterations reads and writes a slice twice, and reads two indices."""
    row, whole, index = 400, 16 * 400, 4
    # The sum reads x twice; its result stays in vector memory.
    per_iteration = (row + row + index) + (row + row + index)
    total = 2 * whole + 16 * per_iteration
    assert traffic.memory_traffic(hlo.parse(TRAFFIC)) == total


def test_a_program_compiled_on_this_machine_is_parsed():
    def f(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x) * 2, None), x, length=7)[0]

    text = jax.jit(f).lower(jnp.ones((64, 64))).compile().as_text()
    program = hlo.parse(text)
    assert 7 in program.execution_counts().values() and program.num_partitions == 1
    assert traffic.memory_traffic(program) >= 7 * 2 * 64 * 64 * 4
