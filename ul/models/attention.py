"""Transformer blocks over a grid of tokens, modulated by a condition vector."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ul.core import mesh
from ul.models import attention_kernels
from ul.models.conditioning import Modulation
from ul.models.dropout import Dropout
from ul.models.remat import remat
from ul.models.sharded_layers import Dense


class ToHeads(nn.Module):
    """A linear layer from x [B, N, c] to `parts` arrays [B, heads, N, head_dim].

    The parameters are those of `Dense(parts * c)`. The product writes the layout that the
    kernel of splash attention reads, so that no array is transposed.
    """

    parts: int
    head_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        kernel = self.param(
            "kernel", nn.linear.default_kernel_init, (width, self.parts * width)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.parts * width,))
        kernel = mesh.gather_parameter(kernel.astype(self.dtype))
        kernel = kernel.reshape(width, self.parts, -1, self.head_dim)
        bias = bias.astype(self.dtype).reshape(self.parts, 1, -1, 1, self.head_dim)
        x = x.astype(self.dtype)
        return [
            jnp.einsum("bnc,chd->bhnd", x, kernel[:, i]) + bias[i]
            for i in range(self.parts)
        ]


class FromHeads(nn.Module):
    """A linear layer from h [B, heads, N, d] to [B, N, c]; the parameters are `Dense(c)`'s."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h):
        _, heads, _, head_dim = h.shape
        width = heads * head_dim
        kernel = self.param("kernel", nn.linear.default_kernel_init, (width, width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        kernel = mesh.gather_parameter(kernel.astype(self.dtype))
        kernel = kernel.reshape(heads, head_dim, width)
        return jnp.einsum("bhnd,hdc->bnc", h, kernel) + bias.astype(self.dtype).reshape(
            1, 1, width
        )


class Attention(nn.Module):
    """Self-attention with RMS-normed queries and keys.

    Text tokens, if there are any, add keys and values (models/text_conditioning.py).
    frames: 0 means full attention. For a clip of that many frames, attention is factorized:
    half of the heads attend within each frame, the other half along time at each position.
    implementation: see models/attention_kernels.py. The parameters are the same for all.
    """

    head_dim: int
    implementation: str
    dtype: jnp.dtype
    frames: int = 0

    @nn.compact
    def __call__(self, x, text=None):
        width, length = x.shape[-1], None
        # Parameters are the same for all, and kernels may not divide the one row that
        # initialization takes.
        implementation = (
            "xla"
            if self.is_initializing()
            else attention_kernels.choose(
                self.implementation,
                tokens=x.shape[1],
                heads=width // self.head_dim,
                head_dim=self.head_dim,
                dtype=jnp.dtype(self.dtype),
                is_full=text is None and not self.frames,
            )
        )
        q_norm = nn.RMSNorm(dtype=self.dtype, name="q_norm")
        k_norm = nn.RMSNorm(dtype=self.dtype, name="k_norm")
        if implementation == "splash":
            q, k, v = ToHeads(3, self.head_dim, self.dtype, name="qkv")(x)
            h = attention_kernels.splash(q_norm(q), k_norm(k), v)
            return FromHeads(self.dtype, name="out")(h)
        qkv = Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        q, k, v = (self._heads(part) for part in jnp.split(qkv, 3, axis=-1))
        q, k = q_norm(q), k_norm(k)
        if text is not None:
            kv = Dense(2 * width, dtype=self.dtype, name="text_kv")(text.tokens)
            text_k, text_v = (self._heads(part) for part in jnp.split(kv, 2, axis=-1))
            text_k = nn.RMSNorm(dtype=self.dtype, name="text_k_norm")(text_k)
            # Text comes last, so that a length masks its padding, which cuDNN supports.
            length = k.shape[1] + text.length
            k = jnp.concatenate([k, text_k], axis=1)
            v = jnp.concatenate([v, text_v], axis=1)
        attend = functools.partial(
            jax.nn.dot_product_attention, implementation=implementation
        )
        if self.frames:
            h = self._factorized(attend, q, k, v)
        else:
            h = attend(q, k, v, key_value_seq_lengths=length)
        return Dense(width, dtype=self.dtype, name="out")(h.reshape(x.shape))

    def _factorized(self, attend, *qkv):
        """Attend [B, T S, heads, d]: half of the heads over S, the other half over T."""
        batch, tokens, heads, dim = qkv[0].shape
        frames, positions, half = self.frames, tokens // self.frames, heads // 2
        within_frame = (batch * frames, positions, half, dim)
        space = attend(*(a[:, :, :half].reshape(within_frame) for a in qkv))
        by_frame = (batch, frames, positions, heads - half, dim)

        def along_time(a):
            a = a[:, :, half:].reshape(by_frame).swapaxes(1, 2)
            return a.reshape(batch * positions, frames, heads - half, dim)

        time = attend(*map(along_time, qkv))
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

        drop = Dropout(self.dropout)
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
