"""DINOv2 ViT-L/14: the class token of 224x224 images, for FD-DINOv2.

Network: Oquab et al., "DINOv2", 2023 (arXiv:2304.07193). As the metric of Stein et al.,
2023 (arXiv:2306.04675): Frechet distance of 1024 features per image.

Weights: `model.safetensors` of huggingface.co/facebook/dinov2-large, Apache-2.0 by its
card (an older timm card of the same weights says CC-BY-NC-4.0: record the licence of the
file that was fetched), or `dinov2_vitl14_pretrain.pth` of facebookresearch/dinov2.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked

Params = Mapping[str, jax.Array | np.ndarray]

FILE = "dinov2_vitl14.safetensors"
# ImageNet's mean and standard deviation, of pixels in 0..1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a vision transformer; `side` and `patch` in pixels."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    side: int = 224
    patch: int = 14

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.side // self.patch


VIT_L = Size()

# Ours: the names of the same tensor in the two public layouts, Hugging Face's and the
# original's. Several names are the rows of one matrix.
_OUTSIDE = {
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
_PREFIX = ("encoder.layer.{}.", "blocks.{}.")


def shapes(size: Size = VIT_L) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file; those of the blocks are stacked, [depth, ...]."""
    width, wide = size.width, 4 * size.width
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
        "fc1.kernel": (width, wide),
        "fc1.bias": (wide,),
        "fc2.kernel": (wide, width),
        "fc2.bias": (width,),
        "scale2": (width,),
    }
    return {
        "cls": (width,),
        "positions": (1 + size.grid**2, width),
        "patch.kernel": (size.patch, size.patch, 3, width),
        "patch.bias": (width,),
        "norm.scale": (width,),
        "norm.bias": (width,),
        **{f"blocks.{name}": (size.depth, *shape) for name, shape in block.items()},
    }


def _cubic(taps: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution kernel with PyTorch's a."""
    t = np.abs(taps)
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def resized_positions(positions: np.ndarray, grid: int) -> np.ndarray:
    """Position embeddings [1 + g^2, D] of a g x g grid at `grid` x `grid`.

    As facebookresearch/dinov2 does it for its models without registers
    (`interpolate_pos_encoding`): bicubic, not antialiased, borders repeated, and with
    0.1 added to the new size where the step is computed. Hugging Face's port
    leaves the 0.1 out; its features differ a little for that.
    """
    old = round((len(positions) - 1) ** 0.5)
    if old == grid:
        return positions
    centre = (np.arange(grid) + 0.5) * old / (grid + 0.1) - 0.5
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
    rows = np.zeros((grid, old))
    np.add.at(
        rows,
        (np.arange(grid)[:, None], np.clip(taps, 0, old - 1)),
        _cubic(centre[:, None] - taps),
    )
    square = positions[1:].reshape(old, old, -1).astype(np.float64)
    new = np.einsum("ih,jw,hwd->ijd", rows, rows, square, optimize=True)
    return np.concatenate([positions[:1], new.reshape(grid**2, -1)]).astype(np.float32)


def from_torch(
    state: Mapping[str, np.ndarray], size: Size = VIT_L
) -> dict[str, np.ndarray]:
    """The file's tensors from a public state dict of either layout.

    Position embeddings are brought to `size.side` here, once, so that the network only
    adds them. The mask token is left out: it serves training alone.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: it is of the variant with registers.
    """
    if any("register_tokens" in name for name in state):
        raise DataError(
            "this DINOv2 has register tokens; FD-DINOv2 is defined without: "
            "take facebook/dinov2-large or dinov2_vitl14_pretrain.pth"
        )
    layout = 0 if _OUTSIDE["cls"][0] in state else 1

    def tensor(name: str, sources: str, prefix: str = "") -> np.ndarray:
        parts = [np.asarray(state[prefix + s], np.float32) for s in sources.split()]
        whole = np.concatenate(parts)
        return whole.T if name.endswith("kernel") else whole

    out = {name: tensor(name, names[layout]) for name, names in _OUTSIDE.items()}
    for name, names in _BLOCK.items():
        prefixes = [_PREFIX[layout].format(i) for i in range(size.depth)]
        out[f"blocks.{name}"] = np.stack(
            [tensor(name, names[layout], prefix) for prefix in prefixes]
        )
    out["cls"] = out["cls"].reshape(-1)
    out["positions"] = resized_positions(out["positions"][0], size.grid)
    # The transposed [w, h, c, out] of [out, c, h, w].
    out["patch.kernel"] = out["patch.kernel"].transpose(1, 0, 2, 3)
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def preprocessed(
    image: UInt8[Array, "N H W 3"], side: int
) -> Float[Array, "N {side} {side} 3"]:
    """Bicubic, antialiased, to side x side, then ImageNet's mean and deviation.

    PIL's bicubic on floats: nothing is rounded or clipped after resizing.
    """
    x = image.astype(jnp.float32) / 255.0
    x = jax.image.resize(x, (len(x), side, side, 3), "cubic", antialias=True)
    return (x - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(1, 1, 1, 3)


def _norm(x: jax.Array, p: Params, name: str) -> jax.Array:
    x = jax.nn.standardize(x, axis=-1, epsilon=1e-6)
    return x * p[f"{name}.scale"][None, None] + p[f"{name}.bias"][None, None]


def _block(x: jax.Array, p: Params, *, heads: int) -> jax.Array:
    """Pre-norm attention and MLP on tokens [N, L, D], each scaled per channel."""

    def linear(x: jax.Array, name: str) -> jax.Array:
        return x @ p[f"{name}.kernel"] + p[f"{name}.bias"][None, None]

    n, length, width = x.shape
    h = linear(_norm(x, p, "norm1"), "qkv")
    q, k, v = jnp.moveaxis(h.reshape(n, length, 3, heads, width // heads), 2, 0)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / (width // heads) ** 0.5
    h = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(logits), v)
    x += linear(h.reshape(n, length, width), "proj") * p["scale1"][None, None]

    h = linear(_norm(x, p, "norm2"), "fc1")
    h = linear(jax.nn.gelu(h, approximate=False), "fc2")
    return x + h * p["scale2"][None, None]


@typechecked
def features(
    params: Params,
    image: UInt8[Array, "N H W 3"],
    size: Size = VIT_L,
) -> Float[Array, "N D"]:
    """Class token after the last norm, of images of any size."""
    n, grid, patch = len(image), size.grid, size.patch
    with jax.default_matmul_precision("highest"):
        x = preprocessed(image, size.side)
        x = x.reshape(n, grid, patch, grid, patch, 3)
        x = jnp.einsum("ngphqc,pqcd->nghd", x, params["patch.kernel"])
        x = x.reshape(n, grid**2, size.width) + params["patch.bias"][None, None]
        cls = jnp.broadcast_to(params["cls"], (n, 1, size.width))
        x = jnp.concatenate([cls, x], axis=1) + params["positions"][None]

        blocks = {name: params[f"blocks.{name}"] for name in _BLOCK}
        x, _ = jax.lax.scan(
            lambda x, p: (_block(x, p, heads=size.heads), None), x, blocks
        )
        return _norm(x[:, :1], params, "norm")[:, 0]
