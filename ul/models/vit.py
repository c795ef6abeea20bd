"""Denoisers of latents: the single-level prior and the two-level base."""

import flax.linen as nn
import jax.numpy as jnp

from ul.core import arrays
from ul.core.types import Array, Float, Int, typechecked
from ul.models.attention import Blocks, OutputLayer
from ul.models.conditioning import Conditioning
from ul.models.layers import Downsample, Upsample
from ul.models.sharded_layers import Dense
from ul.models.text_conditioning import TextProjector


class ViT(nn.Module):
    """Transformer on a latent grid, patch 1; returns v [B, h, w, c], [B, t, h, w, c].

    One level: `widths` (1024,), `depths` (8,), the paper's prior. Two levels: the
    outer one runs half of its blocks, then 2x2 tokens merge for the inner level, then
    it runs the other half on the sum of the way down and up: (512, 1024), (6, 16) is
    the paper's base as we read it (3 + 16 + 3). An outer level of no blocks merges and
    splits alone: patch 2, and a skip. Frames are not merged.

    With `text_channels` it sees text: its tokens in the attention of every block, and
    their mean in the condition. `context`: a latent that is seen beside z_t, cell by cell.
    `factorised`: of clips, see Attention.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int
    dropout: float
    num_classes: int
    attention: str
    remat: str
    scan: bool
    dtype: jnp.dtype
    text_channels: int = 0
    factorised: bool = False

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
        told, pooled = None, None
        if self.text_channels:
            read = TextProjector(self.widths[-1], self.dtype, name="text")
            told, pooled = read(text, text_length)
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
                factorised=self.factorised,
                dtype=self.dtype,
                name=name,
            )

        *outer, (_, depth) = zip(self.widths, self.depths, strict=True)
        seen = z_t if context is None else jnp.concatenate([z_t, context], axis=-1)
        h = Dense(self.widths[0], dtype=self.dtype, name="stem")(seen)
        block = arrays.space(2, z_t.ndim - 2)
        skips = []
        for i, (_, outer_depth) in enumerate(outer):
            if outer_depth:
                h = blocks(outer_depth // 2, f"down_{i}")(h, cond, told)
            skips.append(h)
            merge = Downsample(self.widths[i + 1], self.dtype, block, name=f"merge_{i}")
            h = merge(h)
        h = blocks(depth, "inner")(h, cond, told)
        for i, (width, outer_depth) in reversed(list(enumerate(outer))):
            h = skips[i] + Upsample(width, self.dtype, block, name=f"split_{i}")(h)
            if outer_depth:
                h = blocks(outer_depth - outer_depth // 2, f"up_{i}")(h, cond, told)
        return OutputLayer(z_t.shape[-1], self.dtype, name="head")(h, cond)
