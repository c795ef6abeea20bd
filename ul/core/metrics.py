"""Mergeable accumulators: they read batches and return means over examples."""

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from ul.core.types import Array, Float, typechecked


@flax.struct.dataclass
class Moments(clu_metrics.Metric):
    """Count, mean and sum of squared deviations of per-example values.

    Merged by Chan's rule, so the standard error stays accurate when the mean is large
    compared with the deviations. A pytree of three scalars: `merge` can be jitted.
    """

    count: jax.Array
    mean: jax.Array
    squared_deviations: jax.Array

    @classmethod
    def empty(cls) -> "Moments":
        """Return the moments of no values."""
        zero = jnp.zeros((), jnp.float32)
        return cls(count=zero, mean=zero, squared_deviations=zero)

    @classmethod
    @typechecked
    def from_values(
        cls, values: Float[Array, " B"], mask: Float[Array, " B"] | None = None
    ) -> "Moments":
        """Return the moments of `values`, without the rows whose mask is 0."""
        mask = jnp.ones_like(values) if mask is None else mask
        values = jnp.where(mask > 0, values, 0.0)
        count = jnp.sum(mask)
        mean = jnp.sum(values * mask) / jnp.maximum(count, 1.0)
        return cls(
            count=count,
            mean=mean,
            squared_deviations=jnp.sum(mask * jnp.square(values - mean)),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of the values of both."""
        count = self.count + other.count
        fraction = other.count / jnp.maximum(count, 1.0)
        difference = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + difference * fraction,
            squared_deviations=self.squared_deviations
            + other.squared_deviations
            + jnp.square(difference) * self.count * fraction,
        )

    def compute(self) -> jax.Array:
        """Return the mean over all examples."""
        return self.mean

    def sem(self) -> jax.Array:
        """Return the standard error of the mean."""
        variance = self.squared_deviations / jnp.maximum(self.count - 1.0, 1.0)
        return jnp.sqrt(variance / jnp.maximum(self.count, 1.0))


def merge_moments(a: dict[str, Moments], b: dict[str, Moments]) -> dict[str, Moments]:
    """Merge two dicts of accumulators name by name."""
    return {name: a[name].merge(b[name]) for name in a}
