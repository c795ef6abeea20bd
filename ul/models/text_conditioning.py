"""What a network is told in words: token embeddings, of which some count."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ul.core import mesh
from ul.core.types import Array
from ul.models.sharded_layers import Dense


class Text(NamedTuple):
    """tokens [B, L, width]; length int32 [B]: how many of them count, 0 for no text."""

    tokens: Array
    length: Array


class TextProjector(nn.Module):
    """An encoder's embeddings [B, L, channels] to tokens for the blocks and one vector.

    The vector, float32 [B, width], is of the mean of the tokens that count.
    """

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, text, length) -> tuple[Text, Array]:
        # Encoders differ in scale by orders of magnitude; the padding stays zero.
        h = nn.RMSNorm(use_scale=False, dtype=jnp.float32)(
            mesh.constrain_activations(text)
        )
        counts = jnp.arange(text.shape[1])[None] < length[:, None]
        total = jnp.sum(jnp.where(counts[..., None], h, 0.0), axis=1)
        mean = total / jnp.maximum(length, 1)[:, None]
        pooled = Dense(self.width, name="pooled")(mean)
        return Text(
            Dense(self.width, dtype=self.dtype, name="tokens")(h), length
        ), pooled
