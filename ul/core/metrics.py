"""Mergeable accumulators: they see batches, and give means over examples."""

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from ul.core.types import Array, Float, typechecked


@flax.struct.dataclass
class Moments(clu_metrics.Metric):
    """Count, mean and squared deviations of per-example values.

    Merged by Chan's rule, so the standard error survives a mean that is large
    beside the spread. A pytree of three scalars: merging is a jitted function.
    """

    count: jax.Array
    mean: jax.Array
    square: jax.Array

    @classmethod
    def empty(cls) -> "Moments":
        zero = jnp.zeros((), jnp.float32)
        return cls(count=zero, mean=zero, square=zero)

    @classmethod
    @typechecked
    def of(
        cls, values: Float[Array, " B"], mask: Float[Array, " B"] | None = None
    ) -> "Moments":
        """Moments of `values`, rows with mask 0 left out."""
        mask = jnp.ones_like(values) if mask is None else mask
        values = jnp.where(mask > 0, values, 0.0)
        count = jnp.sum(mask)
        mean = jnp.sum(values * mask) / jnp.maximum(count, 1.0)
        return cls(
            count=count, mean=mean, square=jnp.sum(mask * jnp.square(values - mean))
        )

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1.0)
        gap = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + gap * share,
            square=self.square + other.square + jnp.square(gap) * self.count * share,
        )

    def compute(self) -> jax.Array:
        """The mean over all examples seen."""
        return self.mean

    def sem(self) -> jax.Array:
        """Standard error of the mean."""
        variance = self.square / jnp.maximum(self.count - 1.0, 1.0)
        return jnp.sqrt(variance / jnp.maximum(self.count, 1.0))


def merge(a: dict[str, Moments], b: dict[str, Moments]) -> dict[str, Moments]:
    """Accumulators of the same names, merged name by name."""
    return {name: a[name].merge(b[name]) for name in a}
