"""Convolutional layers: residual blocks, and changes of resolution; of clips too."""

import math

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays, mesh
from ul.models.conditioning import Modulation
from ul.models.sharded_layers import Conv, Dense


class TemporalConv(nn.Module):
    """Of clips [B, T, H, W, C]: each frame with the one before and the one after.

    A convolution of 3 frames and 1x1 pixels, as one product: compilers for CPUs take
    five times as long for convolutions in three dimensions.
    """

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        beyond = jnp.zeros_like(x[:, :1])
        before = jnp.concatenate([beyond, x[:, :-1]], axis=1)
        after = jnp.concatenate([x[:, 1:], beyond], axis=1)
        three = jnp.concatenate([before, x, after], axis=-1)
        return Dense(self.channels, dtype=self.dtype)(three)


class ResBlock(nn.Module):
    """Pre-activation residual block; the condition, if any, scales and shifts.

    Of clips [B, T, H, W, C] the convolutions are of each frame, with one in time between.

    Pixel-wise RMS norm, not GroupNorm: half the memory traffic on an accelerator,
    and EDM2's encoder blocks norm by pixel too. The last convolution starts at zero.
    """

    channels: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, cond=None):
        x = mesh.constrain_activations(x)
        h = nn.RMSNorm(dtype=self.dtype)(x)
        h = Conv(self.channels, (3, 3), dtype=self.dtype)(nn.silu(h))
        if x.ndim == 5:
            h = TemporalConv(self.channels, self.dtype)(h)
        h = nn.RMSNorm(dtype=self.dtype)(h)
        if cond is not None:
            shift, scale = Modulation(self.channels, 2, self.dtype)(cond, h.ndim)
            h = h * (1 + scale) + shift
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=self.dropout == 0.0)(h)
        h = Conv(
            self.channels,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
        )(h)
        if x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=self.dtype, name="skip")(x)
        return x + h


class Downsample(nn.Module):
    """Half the resolution: 2x2 pixels become channels, then 1x1. `block`: other than 2."""

    channels: int
    dtype: jnp.dtype
    block: arrays.BlockSize = 2

    @nn.compact
    def __call__(self, x):
        return Dense(self.channels, dtype=self.dtype)(
            arrays.space_to_depth(x, self.block)
        )


class Upsample(nn.Module):
    """Twice the resolution: 1x1, then depth to space. No transposed convolution."""

    channels: int
    dtype: jnp.dtype
    block: arrays.BlockSize = 2

    @nn.compact
    def __call__(self, x):
        many = math.prod(arrays.block_shape(self.block, x.ndim - 2))
        h = Dense(many * self.channels, dtype=self.dtype)(x)
        return arrays.depth_to_space(h, self.block)
