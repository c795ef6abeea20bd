"""FLOPs: the count of a jaxpr against arithmetic, and against the closed forms."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from ul import build, config
from ul.core.errors import ConfigError
from ul.models.vit import ViT
from ul.pods import closed_form, count, flops


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def test_products_and_convolutions_by_hand():
    def f(a, b):
        return jnp.einsum("bij,bjk->bik", a, b)

    assert flops.of(f, shape(5, 3, 4), shape(5, 4, 7)) == 2 * 5 * 3 * 4 * 7

    def conv(x, kernel, groups):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=numbers,
            feature_group_count=groups,
        )  # fmt: skip

    x = shape(2, 8, 6, 4)
    assert (
        flops.of(lambda x, k: conv(x, k, 1), x, shape(3, 5, 4, 10))
        == 2 * (2 * 4 * 6 * 10) * 3 * 5 * 4
    )
    assert (
        flops.of(lambda x, k: conv(x, k, 2), x, shape(3, 5, 2, 10))
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
    assert flops.of(twelve, shape(8, 8)) == 12 * once

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, product, lambda x: product(product(x)), x)

    assert flops.of(either, shape(8, 8)) == 2 * once


def test_a_loop_of_unknown_length_is_refused_if_it_has_products():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, body, x)

    assert flops.of(loop(lambda x: x + 1), shape(8, 8)) == 0
    with pytest.raises(ConfigError, match="unknown length"):
        flops.of(loop(lambda x: x @ x), shape(8, 8))


def test_the_paper_size_prior_is_the_known_sum():
    """8 blocks of 24 T d^2 + 4 T^2 d at T = d = 1024, and what is around them."""
    made = ViT((1024,), (8,), 128, 0.0, 0, "xla", "none", False, jnp.float32)
    got = closed_form.vit(made, (32, 32, 32), on_data=False).forward
    blocks = 8 * (24 * 1024**3 + 4 * 1024**3)
    modulation = 8 * 12 * 1024**2 + 4 * 1024**2
    around = 2 * (2 * 1024 * 32 * 1024) + 4 * 1024**2
    assert got == blocks + modulation + around


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
    ],
)
def test_closed_forms_are_what_training_traces_to(name, variant):
    """The bar is 1 %; the layers that see only data counted twice, they are equal."""
    found = importlib.import_module(f"experiments.{name}").get_config(variant)
    parsed = config.parse(build.plain(found))
    assert count.model(parsed) == count.closed(parsed).training * parsed.batch_size


def test_remat_computes_more_than_the_model():
    found = importlib.import_module("experiments.digits").get_config("stage2")
    parsed = config.parse(build.plain(found))
    none, dots, full = (
        count.traced(count.with_remat(parsed, p)) for p in ("none", "dots", "full")
    )
    assert none == count.model(parsed) < dots < full < 4 / 3 * none
