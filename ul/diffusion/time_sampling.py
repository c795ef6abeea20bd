"""Sampling of the diffusion times of a batch."""

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, Key, typechecked


@typechecked
def sample_stratified(
    key: Key[Array, ""], stratum: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Sample t in [0, 1) by one uniform shift of evenly spaced strata (VDM, appendix I).

    `stratum` is a row's position in the global batch divided by the number of its rows B.
    Every interval of width 1/B gets exactly one t, however the batch is split over
    devices or microbatches.
    """
    u = jax.random.uniform(key, (), jnp.float32)
    t = jnp.mod(stratum + u, 1.0)
    return jnp.where(t >= 1.0, 0.0, t)
