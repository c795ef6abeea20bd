"""Convolutional layers: residual blocks, and changes of resolution."""

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays, mesh
from ul.models.conditioning import Modulation
from ul.models.products import Conv, Dense


class ResBlock(nn.Module):
    """Pre-activation residual block; the condition, if any, scales and shifts.

    Pixel-wise RMS norm, not GroupNorm: half the memory traffic on an accelerator,
    and EDM2's encoder blocks norm by pixel too. The last convolution starts at zero.
    """

    channels: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, cond=None):
        x = mesh.constrain(x)
        h = nn.RMSNorm(dtype=self.dtype)(x)
        h = Conv(self.channels, (3, 3), dtype=self.dtype)(nn.silu(h))
        h = nn.RMSNorm(dtype=self.dtype)(h)
        if cond is not None:
            shift, scale = Modulation(self.channels, 2, self.dtype)(cond, h.ndim)
            h = h * (1 + scale) + shift
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=self.dropout == 0.0)(h)
        h = Conv(
            self.channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype
        )(h)
        if x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=self.dtype, name="skip")(x)
        return x + h


class Downsample(nn.Module):
    """Half the resolution: 2x2 pixels become channels, then 1x1."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        return Dense(self.channels, dtype=self.dtype)(arrays.space_to_depth(x, 2))


class Upsample(nn.Module):
    """Twice the resolution: 1x1, then depth to space. No transposed convolution."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        return arrays.depth_to_space(Dense(4 * self.channels, dtype=self.dtype)(x), 2)
