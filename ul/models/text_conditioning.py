"""Text conditioning: projected token embeddings with their lengths."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ul.core import mesh
from ul.core.types import Array
from ul.models.sharded_layers import Dense


class Text(NamedTuple):
    """tokens [B, L, width], and length int32 [B]: tokens in use, 0 for no text."""

    tokens: Array
    length: Array


class TextProjector(nn.Module):
    """Projection of a text encoder's embeddings [B, L, channels] to tokens and one vector.

    The vector, float32 [B, width], is projected from the mean of the tokens in use.
    """

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, text, length) -> tuple[Text, Array]:
        # Text encoders differ in scale by orders of magnitude. Padding stays zero.
        h = nn.RMSNorm(use_scale=False, dtype=jnp.float32)(
            mesh.constrain_activations(text)
        )
        in_use = jnp.arange(text.shape[1])[None] < length[:, None]
        total = jnp.sum(jnp.where(in_use[..., None], h, 0.0), axis=1)
        mean = total / jnp.maximum(length, 1)[:, None]
        pooled = Dense(self.width, name="pooled")(mean)
        return Text(
            Dense(self.width, dtype=self.dtype, name="tokens")(h), length
        ), pooled
