"""The deterministic encoder E: x -> z_clean."""

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays
from ul.core.errors import ConfigError
from ul.core.types import Array, Float, typechecked
from ul.models import checks
from ul.models.layers import Downsample, ResBlock
from ul.models.remat import remat
from ul.models.sharded_layers import Conv, Dense


class Encoder(nn.Module):
    """ResNet with patching (UL, section 4).

    Maps [B, H, W, C] to [B, h, w, latent_channels] with h = H / (patch * 2^(stages - 1)),
    and clips [B, T, H, W, C] likewise. `patch` may differ by axis: (1, 2, 2).
    Stage i has blocks[i] residual blocks of channels[i]; the resolution halves between
    stages. The paper's size: patch 2, channels [128, 256, 512, 512], blocks [2, 2, 2, 3].
    """

    patch: int | tuple[int, ...]
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    latent_channels: int
    dtype: jnp.dtype
    remat: str = "none"

    def latent_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return [*g, latent_channels] for images [*grid, C]; raises as `check`."""
        factors = checks.downsampling(
            "encoder", self.patch, len(self.channels) - 1, image_shape
        )
        grid = (n // factor for n, factor in zip(image_shape, factors, strict=False))
        return (*grid, self.latent_channels)

    def check(self, section: str, image_shape: tuple[int, ...]) -> None:
        """Raise ConfigError unless the settings fit each other and the images."""
        checks.check_settings(section, self)
        if len(self.channels) != len(self.blocks):
            raise ConfigError(
                f"{section}.channels and {section}.blocks must have the same length; got "
                f"{self.channels} and {self.blocks}."
            )
        self.latent_shape(image_shape)

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
