"""Model FLOPs in closed form, from the sizes of the networks, with 1 MAC = 2 FLOP.

A linear layer on `rows` rows costs 2 rows c_in c_out. A convolution on an h x w grid costs
2 h w k^2 c_in c_out, per frame of a video. Attention over T tokens costs 4 T^2 width.
Training costs three times the forward pass, because the gradient of each product consists
of two products; a layer whose input is data needs only one of these two.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from ul.core import arrays
from ul.core.errors import ConfigError
from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.stages.stage import NetworkUse

Grid = Sequence[int]  # (h, w) or (t, h, w)


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOPs of the forward pass on one example.

    data_layers: the part of them in layers whose input is data.
    undifferentiated: FLOPs of further forward passes in the loss, without a gradient.
    """

    forward: int
    data_layers: int = 0
    undifferentiated: int = 0

    def __add__(self, other: "FlopCount") -> "FlopCount":
        return FlopCount(
            self.forward + other.forward,
            self.data_layers + other.data_layers,
            self.undifferentiated + other.undifferentiated,
        )

    @property
    def training(self) -> int:
        """FLOPs of the loss and its gradient."""
        return 3 * self.forward - self.data_layers + self.undifferentiated


def linear_flops(rows: int, in_channels: int, out_channels: int) -> int:
    """Count a linear layer that is applied to `rows` rows."""
    return 2 * rows * in_channels * out_channels


def conv3x3_flops(grid: Grid, in_channels: int, out_channels: int) -> int:
    """Count a 3x3 convolution, which is applied to each frame of a video."""
    return 2 * math.prod(grid) * 9 * in_channels * out_channels


def residual_blocks_flops(
    count: int, grid: Grid, channels: int, cond_channels: int = 0
) -> int:
    """Count residual blocks of two 3x3 convolutions and a shift and scale from `cond`.

    On video each block also convolves over 3 frames.
    """
    block = 2 * conv3x3_flops(grid, channels, channels)
    block += linear_flops(1, cond_channels, 2 * channels) if cond_channels else 0
    if len(grid) == 3:
        block += linear_flops(math.prod(grid), 3 * channels, channels)
    return count * block


def downsampled_grid(grid: Grid, block: arrays.BlockSize) -> tuple[int, ...]:
    """Divide the grid by the sides of a block."""
    sides = arrays.block_shape(block, len(grid))
    return tuple(n // side for n, side in zip(grid, sides, strict=True))


def attention_flops(grid: Grid, width: int, text_tokens: int, factorized: bool) -> int:
    """Count attention: 4 T (T + L) d, where T tokens attend to each other and L text tokens.

    Factorized attention on F frames: half of the width attends to the T / F tokens of its
    frame, the other half to the F tokens at its position.
    """
    tokens = math.prod(grid)
    if factorized:
        return 2 * tokens * (tokens // grid[0] + grid[0]) * width
    return 4 * tokens * (tokens + text_tokens) * width


def transformer_flops(
    depth: int,
    grid: Grid,
    width: int,
    cond_channels: int,
    text_tokens: int = 0,
    factorized: bool = False,
) -> int:
    """Count transformer blocks.

    Each block has 24 T d^2 of linear layers, attention, the keys and values of the text,
    and the modulation of 6 d channels.
    """
    tokens = math.prod(grid)
    block = linear_flops(tokens, width, 12 * width)
    block += linear_flops(text_tokens, cond_channels, 2 * width)
    block += attention_flops(grid, width, text_tokens, factorized)
    return depth * (block + linear_flops(1, cond_channels, 6 * width))


def conditioning_flops(width: int) -> FlopCount:
    """Count the two layers that embed the log-SNR; the input of the first is data."""
    first = linear_flops(1, 2 * (width // 2), width)
    return FlopCount(first + linear_flops(1, width, width), first)


def output_layer_flops(
    positions: int, width: int, channels: int, cond_channels: int
) -> int:
    """Count the modulated output layer."""
    return linear_flops(1, cond_channels, 2 * width) + linear_flops(
        positions, width, channels
    )


def text_projector_flops(tokens: int, channels: int, width: int) -> FlopCount:
    """Count the projection of each text token and of their mean, whose inputs are data."""
    projection = linear_flops(tokens + 1, channels, width)
    return FlopCount(projection, projection)


def encoder_flops(module: Encoder, image_shape: Grid) -> FlopCount:
    """Count the encoder."""
    *image, channels = image_shape
    grid = downsampled_grid(image, module.patch)
    patch_size = math.prod(image) // math.prod(grid)
    stem = conv3x3_flops(grid, channels * patch_size, module.channels[0])
    total, in_channels = stem, module.channels[0]
    for i, (channels, blocks) in enumerate(
        zip(module.channels, module.blocks, strict=True)
    ):
        if i:
            grid = downsampled_grid(grid, 2)
            total += linear_flops(
                math.prod(grid), 2 ** len(grid) * in_channels, channels
            )
        total += residual_blocks_flops(blocks, grid, channels)
        in_channels = channels
    total += linear_flops(math.prod(grid), in_channels, module.latent_channels)
    return FlopCount(total, stem)


def vit_flops(
    module: ViT,
    shape: Grid,
    input_is_data: bool,
    text: tuple[int, int] = (0, 0),
    context_channels: int = 0,
) -> FlopCount:
    """Count a ViT on latents of this shape.

    `input_is_data` means that z_t needs no gradient, as in a base model. `text` is
    (tokens, channels). `context_channels` are concatenated to those of z_t.
    """
    *latent, channels = shape
    grid, cond_channels = tuple(latent), module.widths[-1]
    text_tokens = text[0]
    stem = linear_flops(math.prod(grid), channels + context_channels, module.widths[0])
    total = stem + output_layer_flops(
        math.prod(grid), module.widths[0], channels, cond_channels
    )
    for i, (width, depth) in enumerate(zip(module.widths, module.depths, strict=True)):
        if i:
            grid = downsampled_grid(grid, arrays.spatial_block(2, len(grid)))
            tokens = math.prod(grid)
            total += linear_flops(tokens, 4 * module.widths[i - 1], width)
            total += linear_flops(tokens, width, 4 * module.widths[i - 1])
        total += transformer_flops(
            depth, grid, width, cond_channels, text_tokens, module.factorized
        )
    count = FlopCount(total, stem if input_is_data else 0)
    count += conditioning_flops(cond_channels)
    return count + text_projector_flops(*text, cond_channels) if text_tokens else count


def uvit_flops(
    module: UViT, image_shape: Grid, latent_channels: int, latent_is_data: bool
) -> FlopCount:
    """Count a UViT on images of this shape.

    `latent_channels` are those of z_0; `latent_is_data` means that z_0 needs no gradient.
    """
    *image, channels = image_shape
    grid = downsampled_grid(image, module.patch)
    patch_size = math.prod(image) // math.prod(grid)
    widths = (*module.channels, module.width)
    stem = conv3x3_flops(grid, channels * patch_size, widths[0])
    total = stem + output_layer_flops(
        math.prod(grid), widths[0], channels * patch_size, module.width
    )
    for i, channels in enumerate(module.channels):
        total += 2 * residual_blocks_flops(module.blocks, grid, channels, module.width)
        grid = downsampled_grid(grid, 2)
        total += 2 * linear_flops(
            math.prod(grid), 2 ** len(grid) * channels, widths[i + 1]
        )
    latent_layers = linear_flops(math.prod(grid), latent_channels, module.width)
    if module.latent_at_input:
        latent_layers += linear_flops(math.prod(grid), latent_channels, widths[0])
    total += latent_layers + transformer_flops(
        module.depth, grid, module.width, module.width, factorized=module.factorized
    )
    count = FlopCount(total, stem + (latent_layers if latent_is_data else 0))
    return count + conditioning_flops(module.width)


def _encoder_use(use: NetworkUse) -> FlopCount:
    return encoder_flops(use.module, use.shape)


def _vit_use(use: NetworkUse) -> FlopCount:
    return vit_flops(
        use.module,
        use.shape,
        input_is_data=not use.needs_input_gradient,
        text=use.text,
        context_channels=use.extra_channels,
    )


def _uvit_use(use: NetworkUse) -> FlopCount:
    latent_is_data = not use.needs_input_gradient
    return uvit_flops(use.module, use.shape, use.extra_channels, latent_is_data)


CLOSED_FORMS: dict[type, Callable[[NetworkUse], FlopCount]] = {
    Encoder: _encoder_use,
    ViT: _vit_use,
    UViT: _uvit_use,
}


def network_flops(use: NetworkUse) -> FlopCount:
    """Count one network of a stage.

    Raises:
      ConfigError: there is no closed form for such a network.
    """
    count = CLOSED_FORMS.get(type(use.module))
    if count is None:
        raise ConfigError(
            f"{type(use.module).__name__} has no closed form of its FLOPs; add one to "
            "ul/planning/pods/closed_form.py."
        )
    counted = count(use)
    passes = use.undifferentiated_passes * counted.forward
    return dataclasses.replace(counted, undifferentiated=passes)
