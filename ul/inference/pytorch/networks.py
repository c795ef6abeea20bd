"""The networks in PyTorch, with the parameters that `convert.state_dict` returns.

Images are [B, H, W, C] in -1..1, clips [B, T, H, W, C], latents [B, *g, c]. `s` is a
network's section of a config. There is no dropout. PyTorch 2.4 or newer is needed; nothing
else in this package imports this module.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block_shape(block: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (block,) * rank if isinstance(block, int) else tuple(block)


def space_to_depth(x: Tensor, block: Sequence[int]) -> Tensor:
    """Move each block of pixels of x [B, *grid, C] into the channels."""
    rank = x.ndim - 2
    pairs = [
        n for size, b in zip(x.shape[1:-1], block, strict=True) for n in (size // b, b)
    ]
    cells, pixels = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
    x = x.reshape(len(x), *pairs, x.shape[-1])
    return x.permute(0, *cells, *pixels, -1).flatten(rank + 1)


def depth_to_space(x: Tensor, block: Sequence[int]) -> Tensor:
    """Undo `space_to_depth`."""
    rank = x.ndim - 2
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    grid = [size * b for size, b in zip(x.shape[1:-1], block, strict=True)]
    x = x.reshape(*x.shape[:-1], *block, -1).permute(0, *pairs, 2 * rank + 1)
    return x.reshape(len(x), *grid, -1)


class Conv3x3(nn.Conv2d):
    """A convolution of every frame of x [B, ..., H, W, C], in channels-last memory."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, -4).permute(0, 3, 1, 2)
        h = super().forward(frames).permute(0, 2, 3, 1)
        return h.reshape(*x.shape[:-1], -1)


class Float32Linear(nn.Linear):
    """A linear layer that is computed in float32, whatever the network's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float(), self.bias.float())


def layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class RMSNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)


class Modulation(nn.Linear):
    """A projection of the condition [B, d] to `parts` vectors that broadcast over a grid."""

    def __init__(self, condition: int, width: int, parts: int):
        super().__init__(condition, parts * width)
        self.parts = parts

    def modulate(self, cond: Tensor, rank: int) -> tuple[Tensor, ...]:
        out = self(cond)
        return out.view(len(out), *[1] * (rank - 2), -1).chunk(self.parts, dim=-1)


class Conditioning(nn.Module):
    """An embedding of log-SNR, label and pooled text as one vector per example."""

    def __init__(self, width: int, num_classes: int = 0):
        super().__init__()
        self.half = width // 2
        self.logsnr_in = nn.Linear(2 * self.half, width)
        self.logsnr_out = nn.Linear(width, width)
        # The last row stands for no label.
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(
        self, logsnr: Tensor, label: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        slowest, fastest = 2 * math.pi / 64.0, 2 * math.pi * 16.0
        rise = math.log(fastest / slowest) / max(self.half - 1, 1)
        steps = torch.arange(self.half, dtype=torch.float64, device=logsnr.device)
        angle = logsnr.float()[:, None] * (slowest * torch.exp(steps * rise)).float()
        h = torch.cat([angle.sin(), angle.cos()], dim=-1)
        h = self.logsnr_out(F.silu(self.logsnr_in(h.to(self.logsnr_in.weight.dtype))))
        if self.label is not None:
            h = h + self.label(label)
        return F.silu(h if pooled is None else h + pooled)


class ResBlock(nn.Module):
    """A residual block; on clips [B, T, H, W, C] with a convolution over three frames."""

    def __init__(self, inputs: int, channels: int, condition: int, is_clip: bool):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(inputs), RMSNorm(channels)
        self.conv1 = Conv3x3(inputs, channels)
        self.conv2 = Conv3x3(channels, channels)
        self.temporal = nn.Linear(3 * channels, channels) if is_clip else None
        self.modulation = Modulation(condition, channels, 2) if condition else None
        self.skip = nn.Linear(inputs, channels) if inputs != channels else None

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.temporal is not None:
            padded = F.pad(h, (0, 0, 0, 0, 0, 0, 1, 1))
            three = [padded[:, :-2], padded[:, 1:-1], padded[:, 2:]]
            h = self.temporal(torch.cat(three, dim=-1))
        h = self.norm2(h)
        if self.modulation is not None:
            shift, scale = self.modulation.modulate(cond, h.ndim)
            h = h * (1 + scale) + shift
        h = self.conv2(F.silu(h))
        return h + (x if self.skip is None else self.skip(x))


class Resize(nn.Linear):
    """A linear layer with space to depth before it, or depth to space after it."""

    def __init__(self, inputs: int, outputs: int, block: tuple[int, ...], down: bool):
        pixels = math.prod(block)
        sizes = (pixels * inputs, outputs) if down else (inputs, pixels * outputs)
        super().__init__(*sizes)
        self.block, self.down = block, down

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return super().forward(space_to_depth(x, self.block))
        return depth_to_space(super().forward(x), self.block)


class Attention(nn.Module):
    """Self-attention with RMS-normed queries and keys; text adds keys and values.

    With `frames`, half of the heads attend within a frame, the others along time.
    """

    def __init__(self, width: int, head_dim: int, frames: int, text: bool):
        super().__init__()
        self.head_dim, self.frames = head_dim, frames
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(head_dim), RMSNorm(head_dim)
        self.text_kv = nn.Linear(width, 2 * width) if text else None
        self.text_k_norm = RMSNorm(head_dim) if text else None

    def heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Split [B, N, parts * width] into arrays [B, heads, N, head_dim]."""
        split = x.unflatten(-1, (parts, -1, self.head_dim))
        return split.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self.heads(self.qkv(x), 3)
        q, k, mask = self.q_norm(q), self.k_norm(k), None
        if self.text_kv is not None and self.text_k_norm is not None and text:
            tokens, length = text
            text_k, text_v = self.heads(self.text_kv(tokens), 2)
            k = torch.cat([k, self.text_k_norm(text_k)], dim=2)
            v = torch.cat([v, text_v], dim=2)
            number = torch.arange(k.shape[2], device=x.device)
            mask = (number < x.shape[1] + length[:, None])[:, None, None]
        if self.frames:
            h = self.factorized(q, k, v)
        else:
            h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(h.transpose(1, 2).flatten(2))

    def factorized(self, *qkv: Tensor) -> Tensor:
        half = qkv[0].shape[1] // 2
        # [B, heads, T, S, d] has S as its tokens; for attention along time, T.
        by_frame = [a.unflatten(2, (self.frames, -1)) for a in qkv]
        space = F.scaled_dot_product_attention(*(a[:, :half] for a in by_frame))
        time = F.scaled_dot_product_attention(
            *(a[:, half:].transpose(2, 3) for a in by_frame)
        )
        return torch.cat([space, time.transpose(2, 3)], dim=1).flatten(2, 3)


class Block(nn.Module):
    """Attention and MLP with shift, scale and gate (AdaLN-Zero)."""

    def __init__(self, width: int, condition: int, head_dim: int, frames: int, text):
        super().__init__()
        self.modulation = Modulation(condition, width, 6)
        self.attention = Attention(width, head_dim, frames, text)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cond: Tensor, text=None) -> Tensor:
        parts = self.modulation.modulate(cond, x.ndim)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        h = layer_norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(h, text)
        h = layer_norm(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))


class Blocks(nn.Module):
    """Transformer blocks over a grid of tokens with a learned position."""

    def __init__(self, s, grid, width: int, depth: int, condition: int, text=False):
        super().__init__()
        # Levels without blocks have no position either.
        self.position = nn.Parameter(torch.zeros(*grid, width)) if depth else None
        frames = grid[0] if s["factorized"] else 0
        self.blocks = nn.ModuleList(
            Block(width, condition, s["head_dim"], frames, text) for _ in range(depth)
        )

    def forward(self, x: Tensor, cond: Tensor, text=None) -> Tensor:
        if self.position is None:
            return x
        h = (x + self.position).flatten(1, -2)
        for block in self.blocks:
            h = block(h, cond, text)
        return h.view(x.shape)


class OutputLayer(nn.Module):
    def __init__(self, width: int, condition: int, outputs: int):
        super().__init__()
        self.modulation = Modulation(condition, width, 2)
        self.linear = Float32Linear(width, outputs)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift, scale = self.modulation.modulate(cond, x.ndim)
        return self.linear(layer_norm(x) * (1 + scale) + shift)


class Encoder(nn.Module):
    """The deterministic encoder, [B, *grid, C] to [B, *g, c]."""

    def __init__(self, s: Mapping[str, Any], image_shape):
        super().__init__()
        rank, channels = len(image_shape) - 1, s["channels"]
        self.patch, halve = block_shape(s["patch"], rank), (2,) * rank
        self.stem = Conv3x3(math.prod(self.patch) * image_shape[-1], channels[0])
        pairs = itertools.pairwise(channels)
        self.down = nn.ModuleList(Resize(a, b, halve, True) for a, b in pairs)
        self.stages = nn.ModuleList(
            nn.ModuleList(ResBlock(c, c, 0, rank == 3) for _ in range(n))
            for c, n in zip(channels, s["blocks"], strict=True)
        )
        self.norm = RMSNorm(channels[-1])
        self.latent = Float32Linear(channels[-1], s["latent_channels"])

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(space_to_depth(x, self.patch))
        for i, stage in enumerate(self.stages):
            h = self.down[i - 1](h) if i else h
            for block in stage:
                h = block(h)
        return self.latent(F.silu(self.norm(h)))


class UViT(nn.Module):
    """The network of the decoder: v of x_t [B, *grid, C], given z_0 [B, *g, c]."""

    def __init__(self, s: Mapping[str, Any], image_shape, latent_shape):
        super().__init__()
        rank, latents, width = len(image_shape) - 1, latent_shape[-1], s["width"]
        stages, halve = [*s["channels"], width], (2,) * rank
        self.patch = block_shape(s["patch"], rank)
        self.residual = s["residual_upsampling"]
        pixels = math.prod(self.patch) * image_shape[-1]
        self.conditioning = Conditioning(width)
        self.stem = Conv3x3(pixels, stages[0])
        at_input = s["latent_at_input"]
        self.latent_input = nn.Linear(latents, stages[0]) if at_input else None
        self.latent = nn.Linear(latents, width)

        def side():
            return nn.ModuleList(
                nn.ModuleList(
                    ResBlock(c, c, width, rank == 3) for _ in range(s["blocks"])
                )
                for c in s["channels"]
            )

        pairs = list(itertools.pairwise(stages))
        self.down, self.up = side(), side()
        self.merge = nn.ModuleList(Resize(a, b, halve, True) for a, b in pairs)
        self.split = nn.ModuleList(Resize(b, a, halve, False) for a, b in pairs)
        self.inner = Blocks(s, latent_shape[:-1], width, s["depth"], width)
        self.head = OutputLayer(stages[0], width, pixels)

    def forward(self, x_t: Tensor, logsnr: Tensor, z_0: Tensor) -> Tensor:
        dtype = self.latent.weight.dtype
        cond, z_0 = self.conditioning(logsnr, None, None), z_0.to(dtype)
        h = self.stem(space_to_depth(x_t.to(dtype), self.patch))
        if self.latent_input is not None:
            z = self.latent_input(z_0)
            for axis in range(1, h.ndim - 1):
                z = z.repeat_interleave(h.shape[axis] // z_0.shape[axis], axis)
            h = h + z
        skips, inputs = [], []
        for stage, merge in zip(self.down, self.merge, strict=True):
            for block in stage:
                h = block(h, cond)
            skips.append(h)
            h = merge(h)
            inputs.append(h)
        h = self.inner(h + self.latent(z_0), cond)
        for i in reversed(range(len(skips))):
            h = h - inputs[i] if self.residual else h
            h = skips[i] + self.split[i](h)
            for block in self.up[i]:
                h = block(h, cond)
        return depth_to_space(self.head(h, cond), self.patch)


class ViT(nn.Module):
    """The network of the base model: v of z_t [B, *g, c], given its conditions."""

    def __init__(self, s: Mapping[str, Any], latent_shape):
        super().__init__()
        (*grid, channels), widths = latent_shape, s["widths"]
        width, text = widths[-1], s["text_channels"]
        block = (1,) * (len(grid) - 2) + (2, 2)
        self.conditioning = Conditioning(width, s["num_classes"])
        self.stem = nn.Linear(channels * (2 if s["has_context"] else 1), widths[0])
        self.text_tokens = nn.Linear(text, width) if text else None
        self.text_pooled = nn.Linear(text, width) if text else None

        def blocks(level, depth):
            sides = (*grid[:-2], grid[-2] >> level, grid[-1] >> level)
            return Blocks(s, sides, widths[level], depth, width, bool(text))

        pairs = list(itertools.pairwise(widths))
        outer = list(enumerate(s["depths"][:-1]))
        self.down = nn.ModuleList(blocks(i, n // 2) for i, n in outer)
        self.up = nn.ModuleList(blocks(i, n - n // 2) for i, n in outer)
        self.merge = nn.ModuleList(Resize(a, b, block, True) for a, b in pairs)
        self.split = nn.ModuleList(Resize(b, a, block, False) for a, b in pairs)
        self.inner = blocks(len(widths) - 1, s["depths"][-1])
        self.head = OutputLayer(widths[0], width, channels)

    def forward(
        self, z_t, logsnr, label=None, text=None, text_length=None, context=None
    ):
        dtype, tokens, pooled = self.stem.weight.dtype, None, None
        if self.text_tokens is not None and self.text_pooled is not None:
            normed = F.rms_norm(text.float(), text.shape[-1:], eps=1e-6)
            number = torch.arange(text.shape[1], device=text.device)
            in_use = (number < text_length[:, None])[..., None]
            mean = (normed * in_use).sum(1) / text_length.clamp(min=1)[:, None]
            pooled = self.text_pooled(mean.to(dtype))
            tokens = self.text_tokens(normed.to(dtype)), text_length
        cond = self.conditioning(logsnr, label, pooled)
        inputs = z_t if context is None else torch.cat([z_t, context], dim=-1)
        h, skips = self.stem(inputs.to(dtype)), []
        for down, merge in zip(self.down, self.merge, strict=True):
            h = down(h, cond, tokens)
            skips.append(h)
            h = merge(h)
        h = self.inner(h, cond, tokens)
        for i in reversed(range(len(skips))):
            h = skips[i] + self.split[i](h)
            h = self.up[i](h, cond, tokens)
        return self.head(h, cond)
