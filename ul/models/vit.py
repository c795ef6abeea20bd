"""The network of the prior and of the base model: a ViT of one level or more."""

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays
from ul.core.errors import ConfigError
from ul.core.types import Array, Float, Int, typechecked
from ul.models import checks
from ul.models.attention import Blocks, OutputLayer
from ul.models.conditioning import Conditioning
from ul.models.layers import Downsample, Upsample
from ul.models.sharded_layers import Dense
from ul.models.text_conditioning import TextProjector


class ViT(nn.Module):
    """Transformer on a latent grid with patch 1; returns v, [B, h, w, c] or [B, t, h, w, c].

    One level with widths (1024,) and depths (8,) is the paper's prior. With two levels the
    outer one runs half of its blocks, merges 2x2 tokens for the inner level, and runs the
    other half on the sum of the skip and the inner level's output: widths (512, 1024) and
    depths (6, 16) are the paper's base as we read it (3 + 16 + 3 blocks). An outer level
    without blocks only merges and splits, which is patch 2 with a skip. Frames are never
    merged.

    text_channels: channels of the text embeddings, whose tokens every attention sees and
    whose mean is part of the condition; 0 means no text. context: a latent that is
    concatenated to z_t.
    factorized: see Attention.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int
    dtype: jnp.dtype
    num_classes: int = 0
    text_channels: int = 0
    dropout: float = 0.0
    attention: str = "xla"
    remat: str = "none"
    scan: bool = False
    factorized: bool = False

    def check(
        self, section: str, latent_shape: tuple[int, ...], has_text: bool = False
    ) -> None:
        """Raise ConfigError unless the settings fit each other and the latents."""
        checks.check_settings(section, self)
        if len(self.widths) != len(self.depths) or not self.widths:
            raise ConfigError(
                f"{section}.widths and {section}.depths must have the same length, one "
                f"entry for each level; got {self.widths} and {self.depths}."
            )
        *outer, inner = self.depths
        if 1 in outer or not inner:
            raise ConfigError(
                f"{section}.depths must be at least 1 for the inner level, and 0 or at "
                f"least 2 (down and up) for an outer one; got {self.depths}."
            )
        merge = 2 ** (len(self.widths) - 1)
        if any(size % merge for size in latent_shape[-3:-1]):
            raise ConfigError(
                f"{section}.widths has {len(self.widths)} levels, so the sides of the "
                f"latents must be divisible by {merge}; got "
                f"{checks.shape_text(latent_shape[:-1])}."
            )
        checks.check_transformer(section, self, self.widths, latent_shape, has_text)

    @nn.compact
    @typechecked
    def __call__(
        self,
        z_t: Float[Array, "B *g c"],
        logsnr: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        text: Float[Array, "B L e"] | None = None,
        text_length: Int[Array, " B"] | None = None,
        context: Float[Array, "B *g c"] | None = None,
    ) -> Float[Array, "B *g c"]:
        text_tokens, pooled = None, None
        if self.text_channels:
            project = TextProjector(self.widths[-1], self.dtype, name="text")
            text_tokens, pooled = project(text, text_length)
        cond = Conditioning(self.widths[-1], self.num_classes, name="conditioning")(
            logsnr, label, pooled
        ).astype(self.dtype)

        def blocks(depth, name):
            return Blocks(
                depth=depth,
                head_dim=self.head_dim,
                implementation=self.attention,
                dropout=self.dropout,
                remat=self.remat,
                scan=self.scan,
                factorized=self.factorized,
                dtype=self.dtype,
                name=name,
            )

        *outer, (_, depth) = zip(self.widths, self.depths, strict=True)
        inputs = z_t if context is None else jnp.concatenate([z_t, context], axis=-1)
        h = Dense(self.widths[0], dtype=self.dtype, name="stem")(inputs)
        block = arrays.spatial_block(2, z_t.ndim - 2)
        skips = []
        for i, (_, outer_depth) in enumerate(outer):
            if outer_depth:
                h = blocks(outer_depth // 2, f"down_{i}")(h, cond, text_tokens)
            skips.append(h)
            merge = Downsample(self.widths[i + 1], self.dtype, block, name=f"merge_{i}")
            h = merge(h)
        h = blocks(depth, "inner")(h, cond, text_tokens)
        for i, (width, outer_depth) in reversed(list(enumerate(outer))):
            h = skips[i] + Upsample(width, self.dtype, block, name=f"split_{i}")(h)
            if outer_depth:
                h = blocks(outer_depth - outer_depth // 2, f"up_{i}")(
                    h, cond, text_tokens
                )
        return OutputLayer(z_t.shape[-1], self.dtype, name="head")(h, cond)
