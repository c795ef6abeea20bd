"""Model FLOPs in closed form, from the settings of the networks, 1 MAC = 2 FLOP.

A linear layer of `rows` rows: 2 rows c_in c_out. A convolution: 2 h w k^2 c_in c_out.
Attention over T tokens: 4 T^2 width. Training: three times the forward pass, for each
product has two in its gradient; but a layer that sees only data needs one of them.
"""

import dataclasses

from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT


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


def conv3(pixels: int, inputs: int, outputs: int) -> int:
    return 2 * pixels * 9 * inputs * outputs


def res_blocks(count: int, pixels: int, channels: int, condition: int = 0) -> int:
    """Two 3x3 convolutions each, and a shift and a scale from the condition."""
    modulation = linear(1, condition, 2 * channels) if condition else 0
    return count * (2 * conv3(pixels, channels, channels) + modulation)


def transformer(
    depth: int, tokens: int, width: int, condition: int, text: int = 0
) -> int:
    """24 T d^2 of linear layers, 4 T (T + L) d of attention to L tokens of text too, their
    keys and values, 6 d of modulation, a block."""
    block = linear(tokens, width, 12 * width) + linear(text, condition, 2 * width)
    block += 4 * tokens * (tokens + text) * width
    return depth * (block + linear(1, condition, 6 * width))


def conditioning(width: int) -> Count:
    """log-SNR through two layers, of which the first sees data."""
    one = linear(1, 2 * (width // 2), width)
    return Count(one + linear(1, width, width), one)


def head(pixels: int, width: int, channels: int, condition: int) -> int:
    return linear(1, condition, 2 * width) + linear(pixels, width, channels)


def encoder(made: Encoder, image_shape: tuple[int, int, int]) -> Count:
    height, width, channels = image_shape
    pixels = height * width // made.patch**2
    stem = conv3(pixels, channels * made.patch**2, made.channels[0])
    total, before = stem, made.channels[0]
    for i, (channels, blocks) in enumerate(
        zip(made.channels, made.blocks, strict=True)
    ):
        if i:
            pixels //= 4
            total += linear(pixels, 4 * before, channels)
        total += res_blocks(blocks, pixels, channels)
        before = channels
    return Count(total + linear(pixels, before, made.latent_channels), stem)


def reader(tokens: int, channels: int, width: int) -> Count:
    """Of text: each token, and the mean of all, in layers that see data."""
    one = linear(tokens + 1, channels, width)
    return Count(one, one)


def vit(
    made: ViT,
    shape: tuple[int, int, int],
    on_data: bool,
    text: tuple[int, int] = (0, 0),
) -> Count:
    """`on_data`: its input needs no gradient, as a base model's. text: (tokens, channels)."""
    height, width, channels = shape
    tokens, condition = height * width, made.widths[-1]
    stem = linear(tokens, channels, made.widths[0])
    total = stem + head(tokens, made.widths[0], channels, condition)
    for i, (width, depth) in enumerate(zip(made.widths, made.depths, strict=True)):
        if i:
            tokens //= 4
            total += linear(tokens, 4 * made.widths[i - 1], width)
            total += linear(tokens, width, 4 * made.widths[i - 1])
        total += transformer(depth, tokens, width, condition, text[0])
    own = Count(total, stem if on_data else 0) + conditioning(condition)
    return own + reader(*text, condition) if text[0] else own


def uvit(
    made: UViT, image_shape: tuple[int, int, int], sees: int, on_data: bool
) -> Count:
    """`sees`: channels of its z_0; `on_data`: z_0 needs no gradient."""
    height, width, channels = image_shape
    pixels = height * width // made.patch**2
    stages = (*made.channels, made.width)
    stem = conv3(pixels, channels * made.patch**2, stages[0])
    total = stem + head(pixels, stages[0], channels * made.patch**2, made.width)
    for i, channels in enumerate(made.channels):
        total += 2 * res_blocks(made.blocks, pixels, channels, made.width)
        pixels //= 4
        total += 2 * linear(pixels, 4 * channels, stages[i + 1])
    latent = linear(pixels, sees, made.width)
    if made.latent_at_input:
        latent += linear(pixels, sees, stages[0])
    total += latent + transformer(made.depth, pixels, made.width, made.width)
    own = Count(total, stem + (latent if on_data else 0))
    return own + conditioning(made.width)
