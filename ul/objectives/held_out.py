"""Held-out values of an objective, averaged over examples."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from ul.core import arrays, rng
from ul.core import mesh as meshes
from ul.core.metrics import Moments, merge_moments
from ul.objectives.terms import Terms


class HeldOut:
    """The held-out moments of an objective's terms, for any parameters.

    The value of an example is the mean over `num_draws` times and noises; the moments are
    over examples. Times and noises are drawn per row, so the batch size and the mesh
    change nothing but the order of a sum.
    """

    def __init__(self, objective: Callable[..., Terms], *, num_draws: int):
        def measure(params, batch, mask, key):
            def measure_once(draw):
                terms = objective(params, batch, rng.stream(key, "draw", draw), 0)
                return {f"{k}_nats": v for k, v in terms.nats.items()} | terms.stats

            values = jax.lax.map(measure_once, jnp.arange(num_draws))
            return {
                k: Moments.from_values(jnp.mean(v, 0), mask) for k, v in values.items()
            }

        # Jitted here, so that repeated validations compile it only once.
        self._measure = jax.jit(measure)

    def __call__(
        self,
        params,
        batches: Iterator[dict],
        key,
        *,
        batch_size: int,
        prepare: Callable[[dict], dict],
        mesh: jax.sharding.Mesh,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Moments]:
        """Return the moments of every term over `batches`, in nats.

        `prepare` maps a global batch to what the objective takes. Rows that pad the last
        batch have mask 0. `check` is called before each batch and may raise.
        """
        num_rows = -(-batch_size // mesh.size) * mesh.size
        total: dict[str, Moments] | None = None
        with jax.set_mesh(mesh):
            for batch in batches:
                check()
                padded = meshes.to_global(mesh, arrays.pad_rows(batch, num_rows))
                mask = padded.pop("mask")
                moments = self._measure(params, prepare(padded), mask, key)
                total = moments if total is None else merge_moments(total, moments)
        assert total is not None, "the pipeline never yields an empty evaluation"
        return meshes.to_host(mesh, total)


def bits_per_pixel(moments: Moments, num_pixels: int) -> tuple[float, float]:
    """Convert the mean and standard error of a term from nats to bits per pixel."""
    nats_per_bpp = num_pixels * math.log(2.0)
    return float(moments.compute()) / nats_per_bpp, float(moments.sem()) / nats_per_bpp
