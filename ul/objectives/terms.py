"""What an objective returns, and the view of a batch it takes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

# A batch is a dict of arrays whose first dimension is the row:
#   image uint8 [B, H, W, C], or z_clean float32 [B, h, w, c] in stage 2
#   label int32 [B], and what else a sample can be asked to be (conditions.py)
#   row int32 [B]: the key of what this example draws
#   stratum float32 [B] in [0, 1): row / rows drawn together, for stratified times
Batch = dict[str, jax.Array]
Params = Any


@flax.struct.dataclass
class Terms:
    """Per-example results, each [B].

    loss: nats, what is differentiated. nats: its parts by name. stats: other numbers
    worth a log line, in their own units.
    """

    loss: jax.Array
    nats: dict[str, jax.Array]
    stats: dict[str, jax.Array]


def latent_stats(z_clean: jax.Array) -> dict[str, jax.Array]:
    """First and second moment of each example's latent: their means give the std."""
    axes = tuple(range(1, z_clean.ndim))
    return {
        "latent_mean": jnp.mean(z_clean, axis=axes),
        "latent_square": jnp.mean(jnp.square(z_clean), axis=axes),
    }
