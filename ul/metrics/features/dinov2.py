"""DINOv2 ViT-L/14: the class token of 224x224 images, for FD-DINOv2.

Network: Oquab et al., "DINOv2", 2023 (arXiv:2304.07193). Metric: Stein et al., 2023
(arXiv:2306.04675), the Frechet distance of 1024 features per image.

Weights: `model.safetensors` of huggingface.co/facebook/dinov2-large, Apache-2.0 by its
card (an older timm card of the same weights says CC-BY-NC-4.0: record the license of the
file that you downloaded), or `dinov2_vitl14_pretrain.pth` of facebookresearch/dinov2.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked
from ul.metrics.features.transformer import (
    convert_blocks,
    convert_tensor,
    layer_norm,
    linear,
)
from ul.metrics.features.weights import Params

FILE = "dinov2_vitl14.safetensors"
# Mean and standard deviation of ImageNet, for pixels in 0..1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class VitSizes:
    """Sizes of a vision transformer; `side` and `patch` are in pixels."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    side: int = 224
    patch: int = 14

    @property
    def grid(self) -> int:
        """Number of patches along one side."""
        return self.side // self.patch


VIT_L = VitSizes()

# Names in the file: names of the same tensor in the two public layouts, Hugging Face's and
# the original's. Several names are the rows of one matrix.
_OUTSIDE_BLOCKS = {
    "cls": ("embeddings.cls_token", "cls_token"),
    "positions": ("embeddings.position_embeddings", "pos_embed"),
    "patch.kernel": (
        "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.weight",
    ),
    "patch.bias": (
        "embeddings.patch_embeddings.projection.bias",
        "patch_embed.proj.bias",
    ),
    "norm.scale": ("layernorm.weight", "norm.weight"),
    "norm.bias": ("layernorm.bias", "norm.bias"),
}
_QKV = "attention.attention.query.{0} attention.attention.key.{0} attention.attention.value.{0}"
_BLOCK = {
    "norm1.scale": ("norm1.weight", "norm1.weight"),
    "norm1.bias": ("norm1.bias", "norm1.bias"),
    "qkv.kernel": (_QKV.format("weight"), "attn.qkv.weight"),
    "qkv.bias": (_QKV.format("bias"), "attn.qkv.bias"),
    "proj.kernel": ("attention.output.dense.weight", "attn.proj.weight"),
    "proj.bias": ("attention.output.dense.bias", "attn.proj.bias"),
    "scale1": ("layer_scale1.lambda1", "ls1.gamma"),
    "norm2.scale": ("norm2.weight", "norm2.weight"),
    "norm2.bias": ("norm2.bias", "norm2.bias"),
    "fc1.kernel": ("mlp.fc1.weight", "mlp.fc1.weight"),
    "fc1.bias": ("mlp.fc1.bias", "mlp.fc1.bias"),
    "fc2.kernel": ("mlp.fc2.weight", "mlp.fc2.weight"),
    "fc2.bias": ("mlp.fc2.bias", "mlp.fc2.bias"),
    "scale2": ("layer_scale2.lambda1", "ls2.gamma"),
}
_BLOCK_PREFIX = ("encoder.layer.{}.", "blocks.{}.")


def shapes(sizes: VitSizes = VIT_L) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file; blocks are stacked, [depth, ...]."""
    width, hidden = sizes.width, 4 * sizes.width
    block: dict[str, tuple[int, ...]] = {
        "norm1.scale": (width,),
        "norm1.bias": (width,),
        "qkv.kernel": (width, 3 * width),
        "qkv.bias": (3 * width,),
        "proj.kernel": (width, width),
        "proj.bias": (width,),
        "scale1": (width,),
        "norm2.scale": (width,),
        "norm2.bias": (width,),
        "fc1.kernel": (width, hidden),
        "fc1.bias": (hidden,),
        "fc2.kernel": (hidden, width),
        "fc2.bias": (width,),
        "scale2": (width,),
    }
    return {
        "cls": (width,),
        "positions": (1 + sizes.grid**2, width),
        "patch.kernel": (sizes.patch, sizes.patch, 3, width),
        "patch.bias": (width,),
        "norm.scale": (width,),
        "norm.bias": (width,),
        **{f"blocks.{name}": (sizes.depth, *shape) for name, shape in block.items()},
    }


def _cubic_kernel(offset: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Return Keys' cubic convolution kernel, with PyTorch's a."""
    t = np.abs(offset)
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def resize_positions(positions: np.ndarray, grid: int) -> np.ndarray:
    """Resize position embeddings [1 + g^2, D] of a g x g grid to grid x grid.

    This is what facebookresearch/dinov2 does for its models without registers
    (`interpolate_pos_encoding`): bicubic, not antialiased, with repeated borders, and with
    0.1 added to the new size where the step is computed. Hugging Face's port omits the
    0.1, so its features differ slightly.
    """
    old_grid = round((len(positions) - 1) ** 0.5)
    if old_grid == grid:
        return positions
    center = (np.arange(grid) + 0.5) * old_grid / (grid + 0.1) - 0.5
    taps = np.floor(center).astype(int)[:, None] + np.arange(-1, 3)
    weight = np.zeros((grid, old_grid))
    np.add.at(
        weight,
        (np.arange(grid)[:, None], np.clip(taps, 0, old_grid - 1)),
        _cubic_kernel(center[:, None] - taps),
    )
    square = positions[1:].reshape(old_grid, old_grid, -1).astype(np.float64)
    resized = np.einsum("ih,jw,hwd->ijd", weight, weight, square, optimize=True)
    return np.concatenate([positions[:1], resized.reshape(grid**2, -1)]).astype(
        np.float32
    )


def from_torch(
    state: Mapping[str, np.ndarray], sizes: VitSizes = VIT_L
) -> dict[str, np.ndarray]:
    """Return the file's tensors from a public state dict of either layout.

    Position embeddings are resized to `sizes.grid` once, during the conversion. The mask
    token is left out: only training needs it.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: the state is of the variant with registers.
    """
    if any("register_tokens" in name for name in state):
        raise DataError(
            "FD-DINOv2 needs a DINOv2 without register tokens, but these weights have "
            "them. Take facebook/dinov2-large or dinov2_vitl14_pretrain.pth."
        )
    layout = 0 if _OUTSIDE_BLOCKS["cls"][0] in state else 1
    out = {
        name: convert_tensor(state, name, names[layout])
        for name, names in _OUTSIDE_BLOCKS.items()
    }
    blocks = convert_blocks(
        state,
        {name: names[layout] for name, names in _BLOCK.items()},
        [_BLOCK_PREFIX[layout].format(i) for i in range(sizes.depth)],
    )
    out |= {f"blocks.{name}": value for name, value in blocks.items()}
    out["cls"] = out["cls"].reshape(-1)
    out["positions"] = resize_positions(out["positions"][0], sizes.grid)
    # convert_tensor turned [out, c, h, w] into [w, h, c, out].
    out["patch.kernel"] = out["patch.kernel"].transpose(1, 0, 2, 3)
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def preprocess(
    image: UInt8[Array, "N H W 3"], side: int
) -> Float[Array, "N {side} {side} 3"]:
    """Resize images to side x side (bicubic, antialiased) and normalize them.

    The resizing is PIL's bicubic of floats: nothing is rounded or clipped afterwards.
    """
    x = image.astype(jnp.float32) / 255.0
    x = jax.image.resize(x, (len(x), side, side, 3), "cubic", antialias=True)
    return (x - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(1, 1, 1, 3)


def _norm(x: jax.Array, params: Params, name: str) -> jax.Array:
    return layer_norm(x, params, name, epsilon=1e-6)


def _block(x: jax.Array, p: Params, *, heads: int) -> jax.Array:
    """Apply pre-norm attention and MLP, each scaled per channel, to tokens [N, L, D]."""
    n, length, width = x.shape
    h = linear(_norm(x, p, "norm1"), p, "qkv")
    q, k, v = jnp.moveaxis(h.reshape(n, length, 3, heads, width // heads), 2, 0)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / (width // heads) ** 0.5
    h = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(logits), v)
    x += linear(h.reshape(n, length, width), p, "proj") * p["scale1"][None, None]

    h = linear(_norm(x, p, "norm2"), p, "fc1")
    h = linear(jax.nn.gelu(h, approximate=False), p, "fc2")
    return x + h * p["scale2"][None, None]


@typechecked
def features(
    params: Params,
    image: UInt8[Array, "N H W 3"],
    sizes: VitSizes = VIT_L,
) -> Float[Array, "N D"]:
    """Return the class token after the last norm, for images of any size."""
    n, grid, patch = len(image), sizes.grid, sizes.patch
    with jax.default_matmul_precision("highest"):
        x = preprocess(image, sizes.side)
        x = x.reshape(n, grid, patch, grid, patch, 3)
        x = jnp.einsum("ngphqc,pqcd->nghd", x, params["patch.kernel"])
        x = x.reshape(n, grid**2, sizes.width) + params["patch.bias"][None, None]
        cls = jnp.broadcast_to(params["cls"], (n, 1, sizes.width))
        x = jnp.concatenate([cls, x], axis=1) + params["positions"][None]

        blocks = {name: params[f"blocks.{name}"] for name in _BLOCK}
        x, _ = jax.lax.scan(
            lambda x, p: (_block(x, p, heads=sizes.heads), None), x, blocks
        )
        return _norm(x[:, :1], params, "norm")[:, 0]
