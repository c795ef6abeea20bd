"""Transformer blocks over a grid of tokens, modulated by a condition vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ul.core import mesh
from ul.models.conditioning import Modulation
from ul.models.remat import remat
from ul.models.sharded_layers import Dense


class Attention(nn.Module):
    """Self-attention with RMS-normed queries and keys.

    Text tokens, if there are any, add keys and values (models/text_conditioning.py).
    frames: 0 means full attention. For a clip of that many frames, attention is factorized:
    half of the heads attend within each frame, the other half along time at each position.
    implementation: that of jax.nn.dot_product_attention, "xla" or "cudnn".
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
            text_k, text_v = (self._heads(part) for part in jnp.split(kv, 2, axis=-1))
            text_k = nn.RMSNorm(dtype=self.dtype, name="text_k_norm")(text_k)
            # Text comes last, so that a length masks its padding, which cuDNN supports.
            length = k.shape[1] + text.length
            k = jnp.concatenate([k, text_k], axis=1)
            v = jnp.concatenate([v, text_v], axis=1)
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
        """Attend [B, T S, heads, d]: half of the heads over S, the other half over T."""
        batch, tokens, heads, dim = qkv[0].shape
        frames, positions, half = self.frames, tokens // self.frames, heads // 2
        within_frame = (batch * frames, positions, half, dim)
        space = self._attend(*(a[:, :, :half].reshape(within_frame) for a in qkv))
        by_frame = (batch, frames, positions, heads - half, dim)

        def along_time(a):
            a = a[:, :, half:].reshape(by_frame).swapaxes(1, 2)
            return a.reshape(batch * positions, frames, heads - half, dim)

        time = self._attend(*map(along_time, qkv))
        time = time.reshape(batch, positions, frames, heads - half, dim).swapaxes(1, 2)
        shape = (batch, tokens, -1, dim)
        return jnp.concatenate([space.reshape(shape), time.reshape(shape)], axis=2)

    def _heads(self, h):
        """Reshape [B, N, width] to [B, N, heads, head_dim]."""
        return h.reshape(*h.shape[:-1], h.shape[-1] // self.head_dim, self.head_dim)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with shift, scale and gate (DiT's AdaLN-Zero)."""

    head_dim: int
    implementation: str
    dropout: float
    dtype: jnp.dtype
    frames: int = 0

    @nn.compact
    def __call__(self, x, cond, text=None):
        """Return x [B, N, width] and None, which is the form that `nn.scan` takes."""
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
    """Transformer blocks over a grid [B, h, w, width] or [B, t, h, w, width].

    A learned position is added first. factorized: see Attention.
    """

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
        inputs = (cond,) if text is None else (cond, text)
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
            x, _ = stack(*settings, name="blocks")(x, *inputs)
        else:
            for i in range(self.depth):
                x, _ = block(*settings, name=f"block_{i}")(x, *inputs)
        return x.reshape(shape)


class OutputLayer(nn.Module):
    """The output layer: modulated norm and a projection that starts at zero."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, cond):
        shift, scale = Modulation(x.shape[-1], 2, self.dtype)(cond, x.ndim)
        h = nn.LayerNorm(use_scale=False, use_bias=False, dtype=self.dtype)(x)
        # The output is float32, because it is subtracted from a float32 target.
        return Dense(
            self.channels, kernel_init=nn.initializers.zeros, dtype=jnp.float32
        )(h * (1 + scale) + shift)
