"""The held-out value of an objective, example by example."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from ul.core import arrays, mesh, rng
from ul.core.metrics import Moments, merge
from ul.objectives.terms import Terms


class HeldOut:
    """The held-out moments of an objective's terms, for any parameters.

    Each example's value is the mean of `draws` times and noises; the moments are over
    examples. Draws are made per row: the batch size and the mesh change nothing but the
    order of a sum.
    """

    def __init__(self, objective: Callable[..., Terms], *, draws: int):
        def measure(params, batch, mask, key):
            def once(draw):
                terms = objective(params, batch, rng.stream(key, "draw", draw), 0)
                return {f"{k}_nats": v for k, v in terms.nats.items()} | terms.stats

            values = jax.lax.map(once, jnp.arange(draws))
            return {k: Moments.of(jnp.mean(v, 0), mask) for k, v in values.items()}

        self._measure = jax.jit(measure)  # once: every look would compile it anew

    def __call__(
        self,
        params,
        batches: Iterator[dict],
        key,
        *,
        batch_size: int,
        prepare: Callable[[dict], dict],
        on: jax.sharding.Mesh,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Moments]:
        """Every term over `batches`, in nats. Rows that pad the last have mask 0.

        `check` is called before each batch.
        """
        size = -(-batch_size // on.size) * on.size
        total: dict[str, Moments] | None = None
        with jax.set_mesh(on):
            for batch in batches:
                check()
                whole = mesh.to_global(on, arrays.pad_rows(batch, size))
                mask = whole.pop("mask")
                seen = self._measure(params, prepare(whole), mask, key)
                total = seen if total is None else merge(total, seen)
        assert total is not None, "the pipeline never yields an empty evaluation"
        return mesh.to_host(on, total)


def bits_per_pixel(moments: Moments, pixels: int) -> tuple[float, float]:
    """Mean and standard error of a term, nats per example to bits per pixel."""
    unit = pixels * math.log(2.0)
    return float(moments.compute()) / unit, float(moments.sem()) / unit
