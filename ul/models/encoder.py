"""The deterministic encoder: x -> z_clean."""

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays
from ul.core.types import Array, Float, typechecked
from ul.models.layers import Downsample, ResBlock
from ul.models.remat import remat
from ul.models.sharded_layers import Conv, Dense


class Encoder(nn.Module):
    """ResNet with patching (UL, section 4).

    [B, H, W, C] to [B, h, w, latent_channels], h = H / (patch * 2^(stages - 1)); clips
    [B, T, H, W, C] likewise, with `patch` of each axis if they differ: (1, 2, 2).
    `blocks[i]` residual blocks of `channels[i]` at stage i, half the resolution
    between stages. At the paper's size: patch 2, [128, 256, 512, 512], [2, 2, 2, 3].
    """

    patch: int | tuple[int, ...]
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    latent_channels: int
    remat: str
    dtype: jnp.dtype

    @nn.compact
    @typechecked
    def __call__(self, x: Float[Array, "B *grid C"]) -> Float[Array, "B *g c"]:
        block = remat(ResBlock, self.remat)
        h = arrays.space_to_depth(x, self.patch).astype(self.dtype)
        h = Conv(self.channels[0], (3, 3), dtype=self.dtype, name="stem")(h)
        for i, (channels, blocks) in enumerate(
            zip(self.channels, self.blocks, strict=True)
        ):
            if i:
                h = Downsample(channels, self.dtype, name=f"down_{i}")(h)
            for j in range(blocks):
                h = block(channels, 0.0, self.dtype, name=f"stage_{i}_{j}")(h)
        h = nn.silu(nn.RMSNorm(dtype=self.dtype, name="norm")(h))
        return Dense(self.latent_channels, dtype=jnp.float32, name="latent")(h)
