"""Transformer blocks over a grid of tokens, steered by a condition vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ul.core import mesh
from ul.models.conditioning import Modulation
from ul.models.remat import remat
from ul.models.sharded_layers import Dense


class Attention(nn.Module):
    """Full self-attention with RMS-normed queries and keys; text, where there is some,
    has keys and values besides (models/text_conditioning.py).

    frames: 0 is all tokens to all. Of a clip, first half of the heads attend within each
    of its `frames`, the others along time at each place: factorized space and time.
    `implementation` goes to jax.nn.dot_product_attention: "xla", or "cudnn", which
    raises on shapes it does not support.
    """

    head_dim: int
    implementation: str
    dtype: jnp.dtype
    frames: int = 0

    @nn.compact
    def __call__(self, x, text=None):
        width, length = x.shape[-1], None
        qkv = Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        q, k, v = (self._heads(part) for part in jnp.split(qkv, 3, axis=-1))
        q = nn.RMSNorm(dtype=self.dtype, name="q_norm")(q)
        k = nn.RMSNorm(dtype=self.dtype, name="k_norm")(k)
        if text is not None:
            kv = Dense(2 * width, dtype=self.dtype, name="text_kv")(text.tokens)
            told_k, told_v = (self._heads(part) for part in jnp.split(kv, 2, axis=-1))
            told_k = nn.RMSNorm(dtype=self.dtype, name="text_k_norm")(told_k)
            # Text comes last: what pads it is then cut off by a length, as cuDNN can.
            length = k.shape[1] + text.length
            k = jnp.concatenate([k, told_k], axis=1)
            v = jnp.concatenate([v, told_v], axis=1)
        if self.frames:
            h = self._factorized(q, k, v)
        else:
            h = self._attend(q, k, v, length)
        return Dense(width, dtype=self.dtype, name="out")(h.reshape(x.shape))

    def _attend(self, q, k, v, length=None):
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            key_value_seq_lengths=length,
            implementation=self.implementation,
        )

    def _factorized(self, *qkv):
        """[B, T S, heads, d]: half of the heads over S, half over T."""
        batch, tokens, heads, dim = qkv[0].shape
        frames, places, half = self.frames, tokens // self.frames, heads // 2
        inside = (batch * frames, places, half, dim)
        space = self._attend(*(a[:, :, :half].reshape(inside) for a in qkv))
        apart = (batch, frames, places, heads - half, dim)

        def along_time(a):
            a = a[:, :, half:].reshape(apart).swapaxes(1, 2)
            return a.reshape(batch * places, frames, heads - half, dim)

        time = self._attend(*map(along_time, qkv))
        time = time.reshape(batch, places, frames, heads - half, dim).swapaxes(1, 2)
        shape = (batch, tokens, -1, dim)
        return jnp.concatenate([space.reshape(shape), time.reshape(shape)], axis=2)

    def _heads(self, h):
        """[B, N, width] to [B, N, heads, head_dim]."""
        return h.reshape(*h.shape[:-1], h.shape[-1] // self.head_dim, self.head_dim)


class Block(nn.Module):
    """Attention and MLP, pre-norm, each with shift, scale and gate (DiT's AdaLN-Zero)."""

    head_dim: int
    implementation: str
    dropout: float
    dtype: jnp.dtype
    frames: int = 0

    @nn.compact
    def __call__(self, x, cond, text=None):
        """x [B, N, width] -> (the same, None): the form `nn.scan` takes."""
        x = mesh.constrain_activations(x)
        width = x.shape[-1]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = Modulation(
            width, 6, self.dtype
        )(cond, x.ndim)

        def norm(x, shift, scale):
            h = nn.LayerNorm(use_scale=False, use_bias=False, dtype=self.dtype)(x)
            return h * (1 + scale) + shift

        drop = nn.Dropout(self.dropout, deterministic=self.dropout == 0.0)
        h = Attention(self.head_dim, self.implementation, self.dtype, self.frames)(
            norm(x, shift_a, scale_a), text
        )
        x = x + gate_a * drop(h)
        h = Dense(4 * width, dtype=self.dtype, name="mlp_in")(norm(x, shift_m, scale_m))
        h = drop(nn.gelu(h))
        h = Dense(width, dtype=self.dtype, name="mlp_out")(h)
        return x + gate_m * h, None


class Blocks(nn.Module):
    """`depth` blocks over a grid [B, h, w, width] or [B, t, h, w, width], with a learned
    position added. `factorized`: see Attention."""

    depth: int
    head_dim: int
    implementation: str
    dropout: float
    remat: str
    scan: bool
    dtype: jnp.dtype
    factorized: bool = False

    @nn.compact
    def __call__(self, x, cond, text=None):
        shape = x.shape
        position = self.param("position", nn.initializers.normal(0.02), shape[1:])
        x = (x + position[None].astype(x.dtype)).reshape(shape[0], -1, shape[-1])
        block = remat(Block, self.remat, prevent_cse=not self.scan)
        given = (cond,) if text is None else (cond, text)
        frames = shape[1] if self.factorized else 0
        settings = (
            self.head_dim,
            self.implementation,
            self.dropout,
            self.dtype,
            frames,
        )
        if self.scan:
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=self.depth,
            )
            x, _ = stack(*settings, name="blocks")(x, *given)
        else:
            for i in range(self.depth):
                x, _ = block(*settings, name=f"block_{i}")(x, *given)
        return x.reshape(shape)


class OutputLayer(nn.Module):
    """The output layer: modulated norm and a projection that starts at zero."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, cond):
        shift, scale = Modulation(x.shape[-1], 2, self.dtype)(cond, x.ndim)
        h = nn.LayerNorm(use_scale=False, use_bias=False, dtype=self.dtype)(x)
        # float32 from here: the output is subtracted from a float32 target.
        return Dense(
            self.channels, kernel_init=nn.initializers.zeros, dtype=jnp.float32
        )(h * (1 + scale) + shift)
