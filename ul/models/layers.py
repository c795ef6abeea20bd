"""Convolutional layers for images and clips: residual blocks, down- and upsampling."""

import math

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays, mesh
from ul.models.conditioning import Modulation
from ul.models.dropout import Dropout
from ul.models.sharded_layers import Conv, Dense


class TemporalConv(nn.Module):
    """Convolution over three frames of clips [B, T, H, W, C], 1x1 in space.

    It is computed as one matrix product, because XLA's three-dimensional convolutions take
    five times as long on CPUs.
    """

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        padding = jnp.zeros_like(x[:, :1])
        before = jnp.concatenate([padding, x[:, :-1]], axis=1)
        after = jnp.concatenate([x[:, 1:], padding], axis=1)
        three = jnp.concatenate([before, x, after], axis=-1)
        return Dense(self.channels, dtype=self.dtype)(three)


class ResBlock(nn.Module):
    """Pre-activation residual block, scaled and shifted by the condition if there is one.

    On clips [B, T, H, W, C] the convolutions act on each frame, with a temporal one between
    them. The norm is a pixel-wise RMS norm, as in EDM2's encoder blocks, because GroupNorm
    needs twice the memory traffic. The last convolution starts at zero.
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
        h = Dropout(self.dropout)(h)
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
    """Halve the resolution: `block` pixels become channels, which a 1x1 layer projects."""

    channels: int
    dtype: jnp.dtype
    block: arrays.BlockSize = 2

    @nn.compact
    def __call__(self, x):
        return Dense(self.channels, dtype=self.dtype)(
            arrays.space_to_depth(x, self.block)
        )


class Upsample(nn.Module):
    """Double the resolution: a 1x1 layer, then depth to space."""

    channels: int
    dtype: jnp.dtype
    block: arrays.BlockSize = 2

    @nn.compact
    def __call__(self, x):
        pixels = math.prod(arrays.block_shape(self.block, x.ndim - 2))
        h = Dense(pixels * self.channels, dtype=self.dtype)(x)
        return arrays.depth_to_space(h, self.block)
