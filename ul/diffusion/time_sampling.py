"""Times for the rows of a batch."""

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, Key, typechecked


@typechecked
def stratified(key: Key[Array, ""], stratum: Float[Array, " B"]) -> Float[Array, " B"]:
    """t in [0, 1): one uniform shift of evenly spaced strata (VDM, appendix I).

    `stratum` is the row's place among all rows drawn together, row / rows: over a
    global batch of B rows every interval of width 1/B gets exactly one t, however
    the batch is split over devices or microbatches.
    """
    u = jax.random.uniform(key, (), jnp.float32)
    t = jnp.mod(stratum + u, 1.0)
    return jnp.where(t >= 1.0, 0.0, t)
