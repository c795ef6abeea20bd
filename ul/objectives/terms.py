"""The arguments and the result that all objectives share."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

# A batch is a dict of arrays whose first dimension is the row:
#   image uint8 [B, H, W, C], or z_clean float32 [B, h, w, c] in stage 2
#   label int32 [B], or the other conditions of a sample (conditions.py)
#   row int32 [B]: the number that seeds the noise of this example
#   stratum float32 [B] in [0, 1): the row's position in the global batch divided by the
#     number of its rows, for stratified times
Batch = dict[str, jax.Array]
Params = Any


@flax.struct.dataclass
class Terms:
    """The results of an objective per example, each [B].

    loss: the value that is differentiated, in nats.
    nats: parts of the loss by name, which are logged in bits per pixel.
    stats: other numbers to log, in their own units.
    """

    loss: jax.Array
    nats: dict[str, jax.Array]
    stats: dict[str, jax.Array]


def latent_stats(z_clean: jax.Array) -> dict[str, jax.Array]:
    """Return the first and second moment of each example's latent.

    Their means over examples give the standard deviation of the latents.
    """
    axes = tuple(range(1, z_clean.ndim))
    return {
        "latent_mean": jnp.mean(z_clean, axis=axes),
        "latent_square": jnp.mean(jnp.square(z_clean), axis=axes),
    }
