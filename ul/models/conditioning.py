"""Embed log-SNR, class and pooled text as one vector, and modulate blocks with it."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ul.core import mesh
from ul.core.types import Array, Float, Int, typechecked
from ul.models.sharded_layers import Dense

# Angular frequencies per unit of logsnr: periods from the whole range to 1/16 nat.
_SLOWEST, _FASTEST = 2 * np.pi / 64.0, 2 * np.pi * 16.0


class Conditioning(nn.Module):
    """Embedding of logsnr [B], label [B] and pooled text as a vector [B, width], float32.

    num_classes: 0 means no labels; the label `num_classes` is the null label of guidance.
    """

    width: int
    num_classes: int = 0

    @nn.compact
    @typechecked
    def __call__(
        self,
        logsnr: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        pooled: Float[Array, "B d"] | None = None,
    ) -> Float[Array, "B d"]:
        frequency = jnp.asarray(
            np.geomspace(_SLOWEST, _FASTEST, self.width // 2), jnp.float32
        )
        angle = logsnr[:, None] * frequency[None, :]
        h = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        h = nn.silu(Dense(self.width, name="logsnr_in")(h))
        h = Dense(self.width, name="logsnr_out")(h)
        if self.num_classes:
            table = nn.Embed(self.num_classes + 1, self.width, name="label")
            h = h + table(label)
        if pooled is not None:
            h = h + pooled
        return mesh.constrain_activations(nn.silu(h))


class Modulation(nn.Module):
    """Projection of the condition to `parts` vectors of `width`, zero at first (AdaLN-Zero).

    They are returned with singleton axes, so that they broadcast over [B, ..., width].
    """

    width: int
    parts: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, cond, rank: int):
        out = Dense(
            self.parts * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype
        )(cond)
        # Otherwise the compiler gathers the condition and shards the columns of `out`.
        out = mesh.constrain_activations(out)
        shape = (out.shape[0],) + (1,) * (rank - 2) + (out.shape[1],)
        return jnp.split(out.reshape(shape), self.parts, axis=-1)
