"""The KL autoencoder of latent diffusion (Rombach et al. 2022), as its weights are published.

The layers and their order are those of the diffusers package's AutoencoderKL, and so are the
names of the submodules, a number after the last underscore standing for an index:
`down_blocks_0/resnets_1/conv1/kernel` is `down_blocks.0.resnets.1.conv1.weight` there.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ul.core import mesh
from ul.core.types import Array, Float, typechecked
from ul.models.sharded_layers import Conv, Dense


@dataclasses.dataclass(frozen=True)
class KlAutoencoderSizes:
    """Sizes of the encoder and the decoder of a KL autoencoder.

    channels: channels at each resolution, from the image down; each resolution is half
    the previous one.
    blocks: residual blocks at each resolution of the encoder; the decoder has one more.
    attention: whether the middle of both has attention. quant_conv, post_quant_conv:
    whether there is a 1x1 convolution after the encoder and before the decoder.
    """

    channels: tuple[int, ...]
    blocks: int
    latent_channels: int
    groups: int
    attention: bool
    quant_conv: bool
    post_quant_conv: bool

    @property
    def down(self) -> int:
        """Pixels on each side of one latent cell."""
        return 2 ** (len(self.channels) - 1)


# Flax's fast variance, the mean of squares minus the squared mean, loses precision.
GroupNorm = functools.partial(nn.GroupNorm, epsilon=1e-6, use_fast_variance=False)


class ResnetBlock(nn.Module):
    """Norm, SiLU and convolution, twice, with a 1x1 shortcut if the channels change."""

    channels: int
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        h = mesh.constrain_activations(x)
        for i in ("1", "2"):
            h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name=f"norm{i}")(h))
            h = Conv(self.channels, (3, 3), dtype=self.dtype, name=f"conv{i}")(h)
        if x.shape[-1] != self.channels:
            x = Conv(self.channels, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class SpatialAttention(nn.Module):
    """Attention over all positions of [B, h, w, C], with one head as wide as the channels."""

    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        shape = x.shape
        h = GroupNorm(self.groups, dtype=self.dtype, name="group_norm")(x)
        h = h.reshape(shape[0], -1, 1, shape[-1])
        dense = functools.partial(Dense, shape[-1], dtype=self.dtype)
        query, key, value = (dense(name=f"to_{n}")(h) for n in "qkv")
        h = jax.nn.dot_product_attention(query, key, value)
        return x + dense(name="to_out_0")(h).reshape(shape)


class Resampler(nn.Module):
    """Half or double the resolution with a convolution.

    Downsampling pads one row and one column of zeros, at the end only.
    """

    up: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, x.shape[-1], (3, 3), dtype=self.dtype)
        if self.up:
            return conv(name="conv")(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
        return conv(strides=2, padding=((0, 1), (0, 1)), name="conv")(x)


class ResolutionLevel(nn.Module):
    """Residual blocks at one resolution, then the resampler to the next one, if any."""

    channels: int
    blocks: int
    resampler: str | None
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h):
        for j in range(self.blocks):
            h = ResnetBlock(
                self.channels, self.groups, self.dtype, name=f"resnets_{j}"
            )(h)
        if self.resampler:
            up = self.resampler == "upsamplers"
            h = Resampler(up, self.dtype, name=f"{self.resampler}_0")(h)
        return h


class Middle(nn.Module):
    """Two residual blocks with attention between them."""

    attention: bool
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h):
        block = functools.partial(ResnetBlock, h.shape[-1], self.groups, self.dtype)
        h = block(name="resnets_0")(h)
        if self.attention:
            h = SpatialAttention(self.groups, self.dtype, name="attentions_0")(h)
        return block(name="resnets_1")(h)


class KlEncoder(nn.Module):
    """Encoder of x to the mean of the posterior; the log variance is dropped."""

    sizes: KlAutoencoderSizes
    dtype: jnp.dtype

    @nn.compact
    @typechecked
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        s, numbers = self.sizes, 2 * self.sizes.latent_channels
        h = Conv(s.channels[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        for i, channels in enumerate(s.channels):
            resampler = "downsamplers" if i + 1 < len(s.channels) else None
            settings = (channels, s.blocks, resampler, s.groups, self.dtype)
            h = ResolutionLevel(*settings, name=f"down_blocks_{i}")(h)
        h = Middle(s.attention, s.groups, self.dtype, name="mid_block")(h)
        h = nn.silu(GroupNorm(s.groups, dtype=self.dtype, name="conv_norm_out")(h))
        # The latents are float32.
        h = Conv(numbers, (3, 3), dtype=jnp.float32, name="conv_out")(h)
        if s.quant_conv:
            h = Conv(numbers, (1, 1), dtype=jnp.float32, name="quant_conv")(h)
        return h[..., : s.latent_channels]


class KlDecoder(nn.Module):
    """Decoder of latents, on the encoder's own scale, to x."""

    sizes: KlAutoencoderSizes
    image_channels: int
    dtype: jnp.dtype

    @nn.compact
    @typechecked
    def __call__(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        s, h = self.sizes, z
        if s.post_quant_conv:
            h = Conv(
                s.latent_channels, (1, 1), dtype=self.dtype, name="post_quant_conv"
            )(h)
        h = Conv(s.channels[-1], (3, 3), dtype=self.dtype, name="conv_in")(h)
        h = Middle(s.attention, s.groups, self.dtype, name="mid_block")(h)
        for i, channels in enumerate(reversed(s.channels)):
            resampler = "upsamplers" if i + 1 < len(s.channels) else None
            settings = (channels, s.blocks + 1, resampler, s.groups, self.dtype)
            h = ResolutionLevel(*settings, name=f"up_blocks_{i}")(h)
        h = nn.silu(GroupNorm(s.groups, dtype=self.dtype, name="conv_norm_out")(h))
        return Conv(self.image_channels, (3, 3), dtype=jnp.float32, name="conv_out")(h)
