"""FLOPs: the count of a jaxpr against arithmetic, and against the closed forms."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from ul.core.errors import ConfigError
from ul.models.vit import ViT
from ul.planning.pods import closed_form, jaxpr_flops, model_flops
from ul.stages import registry
from ul.sweeps.report import costs


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def test_products_and_convolutions_by_hand():
    def f(a, b):
        return jnp.einsum("bij,bjk->bik", a, b)

    assert jaxpr_flops.of(f, shape(5, 3, 4), shape(5, 4, 7)) == 2 * 5 * 3 * 4 * 7

    def conv(x, kernel, groups):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=numbers,
            feature_group_count=groups,
        )  # fmt: skip

    x = shape(2, 8, 6, 4)
    assert (
        jaxpr_flops.of(lambda x, k: conv(x, k, 1), x, shape(3, 5, 4, 10))
        == 2 * (2 * 4 * 6 * 10) * 3 * 5 * 4
    )
    assert (
        jaxpr_flops.of(lambda x, k: conv(x, k, 2), x, shape(3, 5, 2, 10))
        == 2 * (2 * 4 * 6 * 10) * 3 * 5 * 2
    )


def test_loops_count_as_often_as_they_run_and_branches_once():
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
    assert jaxpr_flops.of(twelve, shape(8, 8)) == 12 * once

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, product, lambda x: product(product(x)), x)

    assert jaxpr_flops.of(either, shape(8, 8)) == 2 * once


def test_a_loop_of_unknown_length_is_refused_if_it_has_products():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, body, x)

    assert jaxpr_flops.of(loop(lambda x: x + 1), shape(8, 8)) == 0
    with pytest.raises(ConfigError, match="unknown length"):
        jaxpr_flops.of(loop(lambda x: x @ x), shape(8, 8))


def test_the_paper_size_prior_is_the_known_sum():
    """8 blocks of 24 T d^2 + 4 T^2 d at T = d = 1024, and what is around them."""
    made = ViT((1024,), (8,), 128, 0.0, 0, "xla", "none", False, jnp.float32)
    got = closed_form.vit(made, (32, 32, 32), on_data=False).forward
    blocks = 8 * (24 * 1024**3 + 4 * 1024**3)
    modulation = 8 * 12 * 1024**2 + 4 * 1024**2
    around = 2 * (2 * 1024 * 32 * 1024) + 4 * 1024**2
    assert got == blocks + modulation + around


# GFLOP forward, by hand in ../shared/speed.md section 3.2, with 2x2 pixels merged and 1x1
# convolutions where resolution changes: 2 pixels 4 c_in c_out each way.
BY_HAND = {
    "encoder": 3 * 77.3 + 29.0 + 10.7 + 2.0,
    "prior": 241.8,
    "decoder": 463.9 + 240.5 + 2 * 3 * 4.295 + 3.6,
    "base": 162.4,
}


@pytest.mark.parametrize("variant", ["stage1", "stage2"])
def test_the_papers_networks_cost_what_is_known(variant):
    made = importlib.import_module("experiments.imagenet512").get_config(variant)
    parsed = registry.parse(registry.to_dict(made))
    found = model_flops.networks(parsed)
    for name, cost in found.items():
        assert cost.forward / 1e9 == pytest.approx(BY_HAND[name], rel=0.02), name
    known = {"encoder": 28.3, "prior": 156.4, "decoder": 192.2, "base": 349.8}
    sizes = model_flops.parameters(parsed)
    assert sizes.keys() == found.keys()
    for name, size in sizes.items():
        assert size / 1e6 == pytest.approx(known[name], abs=0.1), name


def test_both_conventions_are_printed():
    found = importlib.import_module("experiments.imagenet512").get_config("stage2")
    line = costs_of(registry.parse(registry.to_dict(found)))["base"]
    assert line[:4] == ["349.8M", "80.69", "161.4", "484.1"]
    assert "| DiT-XL/2 " in costs.beside() and "| 525  | 1050  |" in costs.beside()


def costs_of(parsed):
    """Cells by network."""
    rows = [line.strip("| ").split("|") for line in costs.per_image(parsed).split("\n")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("digits", "stage1"),
        ("digits", "stage2"),
        ("photos", "stage2"),
        ("photos", "stage1_64"),
        ("ablations", "detached_prior"),
        ("ablations", "kl_autoencoder"),
        ("single_stage", "random_noise"),
        ("single_stage", "pixels"),
        ("imagenet512", "stage1"),
        ("imagenet512", "stage2_medium"),
        ("captions", "stage2"),
        ("moving_digits", "stage1"),
        ("kinetics600", "stage1"),
        ("kinetics600", "stage2"),
        ("text_to_image", "stage2_970"),
    ],
)
def test_closed_forms_are_what_training_traces_to(name, variant):
    """The bar is 1 %; the layers that see only data counted twice, they are equal."""
    found = importlib.import_module(f"experiments.{name}").get_config(variant)
    parsed = registry.parse(registry.to_dict(found))
    assert (
        model_flops.model(parsed)
        == model_flops.closed(parsed).training * parsed.batch_size
    )


def test_remat_computes_more_than_the_model():
    found = importlib.import_module("experiments.digits").get_config("stage2")
    parsed = registry.parse(registry.to_dict(found))
    none, dots, full = (
        model_flops.traced(model_flops.with_remat(parsed, p))
        for p in ("none", "dots", "full")
    )
    assert none == model_flops.model(parsed) < dots < full < 4 / 3 * none
