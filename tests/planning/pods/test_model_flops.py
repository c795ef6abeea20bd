"""FLOPs: counts of jaxprs against arithmetic and against the closed forms."""

import jax
import jax.numpy as jnp
import pytest

from tests.lib import untrained
from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.models.vit import ViT
from ul.planning.pods import closed_form, jaxpr_flops, model_flops
from ul.runs.train_spec import TrainSpec
from ul.stages.stage import NetworkUse
from ul.sweeps.report import costs


def array(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def spec_of(name, variant):
    return TrainSpec(untrained.parsed(name, variant))


def test_products_and_convolutions_equal_arithmetic():
    def f(a, b):
        return jnp.einsum("bij,bjk->bik", a, b)

    assert (
        jaxpr_flops.count_flops(f, array(5, 3, 4), array(5, 4, 7)) == 2 * 5 * 3 * 4 * 7
    )

    def conv(x, kernel, groups):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=numbers,
            feature_group_count=groups,
        )  # fmt: skip

    x = array(2, 8, 6, 4)
    assert (
        jaxpr_flops.count_flops(lambda x, k: conv(x, k, 1), x, array(3, 5, 4, 10))
        == 2 * (2 * 4 * 6 * 10) * 3 * 5 * 4
    )
    assert (
        jaxpr_flops.count_flops(lambda x, k: conv(x, k, 2), x, array(3, 5, 2, 10))
        == 2 * (2 * 4 * 6 * 10) * 3 * 5 * 2
    )


def test_loops_count_as_often_as_they_run_and_one_branch_counts():
    def product(x):
        return x @ x

    def twelve(x):
        def inner(x, _):
            return jax.jit(product)(x), None

        def outer(x, _):
            return jax.checkpoint(lambda x: jax.lax.scan(inner, x, length=4)[0])(
                x
            ), None

        return jax.lax.scan(outer, x, length=3)[0]

    once = 2 * 8**3
    assert jaxpr_flops.count_flops(twelve, array(8, 8)) == 12 * once

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, product, lambda x: product(product(x)), x)

    assert jaxpr_flops.count_flops(either, array(8, 8)) == 2 * once


def test_a_loop_of_unknown_length_must_not_contain_products():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, body, x)

    assert jaxpr_flops.count_flops(loop(lambda x: x + 1), array(8, 8)) == 0
    with pytest.raises(ConfigError, match="loops of known length"):
        jaxpr_flops.count_flops(loop(lambda x: x @ x), array(8, 8))


def test_the_prior_of_the_paper_costs_the_known_sum():
    """8 blocks cost 24 T d^2 + 4 T^2 d at T = d = 1024, plus the layers around them."""
    prior = ViT((1024,), (8,), 128, jnp.float32)
    flops = closed_form.vit_flops(prior, (32, 32, 32), input_is_data=False).forward
    blocks = 8 * (24 * 1024**3 + 4 * 1024**3)
    modulation = 8 * 12 * 1024**2 + 4 * 1024**2
    around = 2 * (2 * 1024 * 32 * 1024) + 4 * 1024**2
    assert flops == blocks + modulation + around


# GFLOP of the forward pass, by hand. Where the resolution changes, 2x2 pixels are merged and
# projected, which costs 2 pixels 4 c_in c_out each way.
GFLOP_BY_HAND = {
    "encoder": 3 * 77.3 + 29.0 + 10.7 + 2.0,
    "prior": 241.8,
    "decoder": 463.9 + 240.5 + 2 * 3 * 4.295 + 3.6,
    "base": 162.4,
}


@pytest.mark.parametrize("variant", ["stage1", "stage2"])
def test_the_networks_of_the_paper_cost_what_is_known(variant):
    stage = untrained.stage("imagenet512", variant)
    counts = model_flops.flops_by_network(stage)
    for name, count in counts.items():
        gflop = count.forward / 1e9
        assert gflop == pytest.approx(GFLOP_BY_HAND[name], rel=0.02), name
    millions = {"encoder": 28.3, "prior": 156.4, "decoder": 192.2, "base": 349.8}
    sizes = model_flops.parameters_by_network(stage)
    assert sizes.keys() == counts.keys()
    for name, size in sizes.items():
        assert size / 1e6 == pytest.approx(millions[name], abs=0.1), name


def test_the_tables_use_both_conventions():
    table = costs.network_table(untrained.stage("imagenet512", "stage2"))
    rows = [line.strip("| ").split("|") for line in table.split("\n")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells["base"][:4] == ["349.8M", "80.69", "161.4", "484.1"]
    published = costs.published_table()
    assert "| DiT-XL/2 " in published and "| 525  | 1050  |" in published


def test_a_network_without_a_closed_form_is_named():
    use = NetworkUse(object(), (4, 4, 4))
    with pytest.raises(ConfigError, match="object has no closed form"):
        closed_form.network_flops(use)


def test_remat_computes_more_than_the_model():
    spec = spec_of("digits", "stage2")
    none, dots, full = (
        model_flops.computed_flops(spec.with_remat(policy))
        for policy in ("none", "dots", "full")
    )
    assert none == model_flops.model_flops(spec) < dots < full < 4 / 3 * none


BREAKS = (
    Break(
        "FLOPs of grouped convolutions as if they had one group",
        "ul/planning/pods/jaxpr_flops.py",
        "math.prod(kernel) // features",
        "math.prod(kernel)",
        "test_products_and_convolutions_equal_arithmetic",
    ),
    Break(
        "the body of a scan counted once",
        "ul/planning/pods/jaxpr_flops.py",
        'eqn.params.get("length", 1)',
        "1",
        "test_loops_count_as_often_as_they_run_and_one_branch_counts",
    ),
)
