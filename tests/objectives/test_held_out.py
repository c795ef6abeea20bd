"""Held-out values do not depend on the batch size or the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core import batching, rng
from ul.core import mesh as meshes
from ul.data import pipeline
from ul.data.sources.base import FunctionSource
from ul.objectives import held_out
from ul.objectives.terms import Terms

NUM_EXAMPLES = 21


def objective(params, batch, key, step):
    noise = rng.normal(rng.stream(key, "noise"), batch["row"], ())
    value = batch["image"][:, 0, 0, 0] * params + noise + batch["stratum"]
    return Terms(loss=value, nats={"rate": value}, stats={})


def measure(batch_size, mesh, num_draws=3):
    source = FunctionSource(
        NUM_EXAMPLES,
        lambda i: {"image": np.full((2, 2, 1), i, np.uint8), "label": 0},
        1,
    )
    dataset = pipeline.make_dataset(
        source, shape=(2, 2, 1), flip=False, seed=0, shuffle=False
    )
    moments = held_out.HeldOut(objective, num_draws=num_draws)(
        jnp.float32(0.5),
        pipeline.eval_batches(dataset, batch_size=batch_size, num_examples=100),
        jax.random.key(0),
        batch_size=batch_size,
        prepare=lambda batch: batch,
        mesh=mesh,
    )
    return moments["rate_nats"]


@pytest.mark.parametrize("batch_size", [1, 8, 13, 64])
@pytest.mark.parametrize("num_devices", [1, 8])
def test_any_batch_size_and_mesh_give_the_same_moments(batch_size, num_devices):
    expected = measure(NUM_EXAMPLES, meshes.make(devices=jax.devices()[:1]))
    mesh = meshes.make(devices=jax.devices()[:num_devices])
    moments = measure(batch_size, mesh)
    assert float(moments.count) == NUM_EXAMPLES
    np.testing.assert_allclose(moments.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(moments.sem(), expected.sem(), rtol=1e-5)


def test_the_mean_and_its_error_are_over_examples():
    n, mesh = NUM_EXAMPLES, meshes.make(devices=jax.devices()[:1])
    moments = measure(n, mesh, num_draws=64)
    values = np.arange(n) * 0.5 + np.arange(n) / n
    assert abs(float(moments.mean) - values.mean()) < 4 / np.sqrt(64 * n)
    np.testing.assert_allclose(moments.sem(), values.std(ddof=1) / np.sqrt(n), rtol=0.1)


def test_bits_per_pixel_converts_nats():
    moments = measure(NUM_EXAMPLES, meshes.make())
    bpp, sem = held_out.bits_per_pixel(moments, 4)
    np.testing.assert_allclose(bpp, float(moments.mean) / (4 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(sem, float(moments.sem()) / (4 * np.log(2)), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_map_rows_keeps_every_row_in_order(rows):
    x = np.arange(rows, dtype=np.float32)
    doubled = batching.map_rows(
        lambda x: 2 * x, {"x": x}, batch_size=8, mesh=meshes.make()
    )
    np.testing.assert_array_equal(doubled, 2 * x)


BREAKS = (
    Break(
        "nats reported as bits",
        "ul/objectives/held_out.py",
        "nats_per_bpp = num_pixels * math.log(2.0)",
        "nats_per_bpp = num_pixels",
        "test_bits_per_pixel_converts_nats",
    ),
    Break(
        "rows that pad a batch are counted",
        "ul/objectives/held_out.py",
        'mask = padded.pop("mask")',
        'mask = jnp.ones_like(padded.pop("mask"))',
        "test_any_batch_size_and_mesh_give_the_same_moments",
    ),
)
