"""The network of the diffusion decoder: a UViT on pixels that sees z_0."""

import math

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays
from ul.core.types import Array, Float, typechecked
from ul.models import checks
from ul.models.attention import Blocks, OutputLayer
from ul.models.conditioning import Conditioning
from ul.models.layers import Downsample, ResBlock, Upsample
from ul.models.remat import remat
from ul.models.sharded_layers import Conv, Dense


class UViT(nn.Module):
    """Patching, convolutional stages down, a transformer, and the stages up; returns v.

    The transformer's grid is that of the latents, [H, W] / (patch * 2^stages), or [T, H, W]
    for clips. z_0 is projected and added there, and with latent_at_input also, repeated to
    full size, at the input. patch, factorized: as in Encoder and Attention.
    dropout: of the transformer. level_dropout: of the convolutional stages, from the highest
    resolution down; by default 0 at the highest and `dropout` below. residual_upsampling:
    each upsampling adds what the lower levels changed, not their output, to the skip
    connection, as in the Residual U-ViT of SiD2 (Hoogeboom et al., arXiv 2410.19324).
    The paper's size: patch 2, channels [128, 256, 512], 2 blocks per stage and side, 8
    transformer blocks of 1024 channels, dropout 0.1.
    """

    patch: int | tuple[int, ...]
    channels: tuple[int, ...]
    blocks: int
    width: int
    depth: int
    head_dim: int
    dtype: jnp.dtype
    dropout: float = 0.0
    level_dropout: tuple[float, ...] = ()
    latent_at_input: bool = False
    residual_upsampling: bool = False
    attention: str = "xla"
    remat: str = "none"
    scan: bool = False
    factorized: bool = False

    def latent_grid(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of z_0, which is the transformer's; raises as `check`."""
        factors = checks.downsampling(
            "decoder", self.patch, len(self.channels), image_shape
        )
        return tuple(n // f for n, f in zip(image_shape, factors, strict=False))

    def check(self, section: str, image_shape: tuple[int, ...]) -> None:
        """Raise ConfigError unless the settings fit each other and the images."""
        checks.check_settings(section, self)
        checks.check_transformer(section, self, (self.width,), image_shape)
        self.latent_grid(image_shape)
        checks.check_level_dropout(section, self.level_dropout, len(self.channels))

    def _level_dropout(self) -> tuple[float, ...]:
        return self.level_dropout or (0.0, *[self.dropout] * len(self.channels))

    @nn.compact
    @typechecked
    def __call__(
        self,
        x_t: Float[Array, "B *grid C"],
        logsnr: Float[Array, " B"],
        z_0: Float[Array, "B *g c"],
    ) -> Float[Array, "B *grid C"]:
        cond = Conditioning(self.width, name="conditioning")(logsnr).astype(self.dtype)
        block = remat(ResBlock, self.remat)
        stages, dropout = (*self.channels, self.width), self._level_dropout()

        def residual(h, side, i):
            for j in range(self.blocks):
                h = block(stages[i], dropout[i], self.dtype, name=f"{side}_{i}_{j}")(
                    h, cond
                )
            return h

        patch_pixels = math.prod(arrays.block_shape(self.patch, x_t.ndim - 2))
        h = arrays.space_to_depth(x_t, self.patch).astype(self.dtype)
        h = Conv(stages[0], (3, 3), dtype=self.dtype, name="stem")(h)
        if self.latent_at_input:
            z = Dense(stages[0], dtype=self.dtype, name="latent_input")(z_0)
            for axis in range(1, h.ndim - 1):
                z = jnp.repeat(z, h.shape[axis] // z_0.shape[axis], axis=axis)
            h = h + z
        skips, inputs = [], []
        for i in range(len(self.channels)):
            h = residual(h, "down", i)
            skips.append(h)
            h = Downsample(stages[i + 1], self.dtype, name=f"merge_{i}")(h)
            inputs.append(h)
        h = h + Dense(self.width, dtype=self.dtype, name="latent")(z_0)
        h = Blocks(
            depth=self.depth,
            head_dim=self.head_dim,
            implementation=self.attention,
            dropout=self.dropout,
            remat=self.remat,
            scan=self.scan,
            factorized=self.factorized,
            dtype=self.dtype,
            name="inner",
        )(h, cond)
        for i in reversed(range(len(self.channels))):
            h = h - inputs[i] if self.residual_upsampling else h
            h = skips[i] + Upsample(stages[i], self.dtype, name=f"split_{i}")(h)
            h = residual(h, "up", i)
        h = OutputLayer(patch_pixels * x_t.shape[-1], self.dtype, name="head")(h, cond)
        return arrays.depth_to_space(h, self.patch)
