"""Model FLOPs in closed form, from the settings of the networks, 1 MAC = 2 FLOP.

A linear layer of `rows` rows: 2 rows c_in c_out. A convolution: 2 h w k^2 c_in c_out, of
clips in each frame. Attention over T tokens: 4 T^2 width. Training: three times
the forward pass, for each product has two in its gradient; but a layer that sees only data
needs one of them.
"""

import dataclasses
import math
from collections.abc import Sequence

from ul.core import arrays
from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT

Grid = Sequence[int]  # (h, w) or (t, h, w)


@dataclasses.dataclass(frozen=True)
class Count:
    """Forward FLOPs of one image; data_layers: of the layers that see only data."""

    forward: int
    data_layers: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.forward + other.forward, self.data_layers + other.data_layers)

    @property
    def training(self) -> int:
        return 3 * self.forward - self.data_layers


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def conv3(grid: Grid, inputs: int, outputs: int) -> int:
    return 2 * math.prod(grid) * 9 * inputs * outputs


def res_blocks(count: int, grid: Grid, channels: int, condition: int = 0) -> int:
    """Two 3x3 convolutions each, of clips one over 3 frames too, and a shift and a scale
    from the condition."""
    one = 2 * conv3(grid, channels, channels)
    one += linear(1, condition, 2 * channels) if condition else 0
    if len(grid) == 3:
        one += linear(math.prod(grid), 3 * channels, channels)
    return count * one


def smaller(grid: Grid, block: arrays.BlockSize) -> tuple[int, ...]:
    sides = arrays.block_shape(block, len(grid))
    return tuple(n // side for n, side in zip(grid, sides, strict=True))


def attention(grid: Grid, width: int, text: int, factorized: bool) -> int:
    """4 T (T + L) d: every token sees all T and L of text. Factorised, of F frames: one
    half of the width sees the T / F of its frame, the other the F of its place."""
    tokens = math.prod(grid)
    if factorized:
        return 2 * tokens * (tokens // grid[0] + grid[0]) * width
    return 4 * tokens * (tokens + text) * width


def transformer(
    depth: int,
    grid: Grid,
    width: int,
    condition: int,
    text: int = 0,
    factorized: bool = False,
) -> int:
    """24 T d^2 of linear layers, attention, keys and values of text, 6 d of modulation, a
    block."""
    tokens = math.prod(grid)
    block = linear(tokens, width, 12 * width) + linear(text, condition, 2 * width)
    block += attention(grid, width, text, factorized)
    return depth * (block + linear(1, condition, 6 * width))


def conditioning(width: int) -> Count:
    """log-SNR through two layers, of which the first sees data."""
    one = linear(1, 2 * (width // 2), width)
    return Count(one + linear(1, width, width), one)


def head(pixels: int, width: int, channels: int, condition: int) -> int:
    return linear(1, condition, 2 * width) + linear(pixels, width, channels)


def encoder(made: Encoder, image_shape: Grid) -> Count:
    *image, channels = image_shape
    grid = smaller(image, made.patch)
    inside = math.prod(image) // math.prod(grid)
    stem = conv3(grid, channels * inside, made.channels[0])
    total, before = stem, made.channels[0]
    for i, (channels, blocks) in enumerate(
        zip(made.channels, made.blocks, strict=True)
    ):
        if i:
            grid = smaller(grid, 2)
            total += linear(math.prod(grid), 2 ** len(grid) * before, channels)
        total += res_blocks(blocks, grid, channels)
        before = channels
    total += linear(math.prod(grid), before, made.latent_channels)
    return Count(total, stem)


def reader(tokens: int, channels: int, width: int) -> Count:
    """Of text: each token, and the mean of all, in layers that see data."""
    one = linear(tokens + 1, channels, width)
    return Count(one, one)


def vit(
    made: ViT,
    shape: Grid,
    on_data: bool,
    text: tuple[int, int] = (0, 0),
    sees: int = 0,
) -> Count:
    """`on_data`: its input needs no gradient, as a base model's. text: (tokens, channels).
    `sees`: channels beside z_t's."""
    *latent, channels = shape
    grid, condition = tuple(latent), made.widths[-1]
    stem = linear(math.prod(grid), channels + sees, made.widths[0])
    total = stem + head(math.prod(grid), made.widths[0], channels, condition)
    for i, (width, depth) in enumerate(zip(made.widths, made.depths, strict=True)):
        if i:
            grid = smaller(grid, arrays.spatial_block(2, len(grid)))
            tokens = math.prod(grid)
            total += linear(tokens, 4 * made.widths[i - 1], width)
            total += linear(tokens, width, 4 * made.widths[i - 1])
        total += transformer(depth, grid, width, condition, text[0], made.factorized)
    own = Count(total, stem if on_data else 0) + conditioning(condition)
    return own + reader(*text, condition) if text[0] else own


def uvit(made: UViT, image_shape: Grid, sees: int, on_data: bool) -> Count:
    """`sees`: channels of its z_0; `on_data`: z_0 needs no gradient."""
    *image, channels = image_shape
    grid = smaller(image, made.patch)
    inside = math.prod(image) // math.prod(grid)
    stages = (*made.channels, made.width)
    stem = conv3(grid, channels * inside, stages[0])
    total = stem + head(math.prod(grid), stages[0], channels * inside, made.width)
    for i, channels in enumerate(made.channels):
        total += 2 * res_blocks(made.blocks, grid, channels, made.width)
        grid = smaller(grid, 2)
        total += 2 * linear(math.prod(grid), 2 ** len(grid) * channels, stages[i + 1])
    latent = linear(math.prod(grid), sees, made.width)
    if made.latent_at_input:
        latent += linear(math.prod(grid), sees, stages[0])
    total += latent + transformer(
        made.depth, grid, made.width, made.width, factorized=made.factorized
    )
    own = Count(total, stem + (latent if on_data else 0))
    return own + conditioning(made.width)
