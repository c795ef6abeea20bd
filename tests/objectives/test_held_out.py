"""The held-out rate does not depend on how examples are batched or laid out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.core import batching, mesh, rng
from ul.data import pipeline
from ul.data.sources.basic import Items
from ul.objectives import held_out
from ul.objectives.terms import Terms

N = 21


def objective(params, batch, key, step):
    noise = rng.normal(rng.stream(key, "noise"), batch["row"], ())
    value = batch["image"][:, 0, 0, 0] * params + noise + batch["stratum"]
    return Terms(loss=value, nats={"rate": value}, stats={})


def measured(batch_size, on, draws=3):
    source = Items(
        N, lambda i: {"image": np.full((2, 2, 1), i, np.uint8), "label": 0}, 1
    )
    dataset = pipeline.examples(
        source, shape=(2, 2, 1), flip=False, seed=0, shuffle=False
    )
    found = held_out.HeldOut(objective, draws=draws)(
        jnp.float32(0.5),
        pipeline.eval_batches(dataset, batch_size=batch_size, num_examples=100),
        jax.random.key(0),
        batch_size=batch_size,
        prepare=lambda batch: batch,
        on=on,
    )
    return found["rate_nats"]


@pytest.mark.parametrize("batch_size", [1, 8, 13, 64])
@pytest.mark.parametrize("devices", [1, 8])
def test_any_batch_size_and_mesh_give_the_same(batch_size, devices):
    want = measured(N, mesh.make(devices=jax.devices()[:1]))
    got = measured(batch_size, mesh.make(devices=jax.devices()[:devices]))
    assert float(got.count) == N
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-5)
    np.testing.assert_allclose(got.sem(), want.sem(), rtol=1e-5)


def test_the_mean_and_its_error_are_over_examples():
    got = measured(N, mesh.make(devices=jax.devices()[:1]), draws=64)
    values = np.arange(N) * 0.5 + np.arange(N) / N
    assert abs(float(got.mean) - values.mean()) < 4 / np.sqrt(64 * N)
    np.testing.assert_allclose(got.sem(), values.std(ddof=1) / np.sqrt(N), rtol=0.1)


def test_nats_to_bits_per_pixel():
    m = measured(N, mesh.make())
    bpp, sem = held_out.bits_per_pixel(m, 4)
    np.testing.assert_allclose(bpp, float(m.mean) / (4 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(sem, float(m.sem()) / (4 * np.log(2)), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_map_rows_keeps_every_row_in_order(rows):
    x = np.arange(rows, dtype=np.float32)
    got = batching.map_rows(lambda x: 2 * x, {"x": x}, batch_size=8, on=mesh.make())
    np.testing.assert_array_equal(got, 2 * x)
