"""CLIP's two towers: unit embeddings of images and of captions, for the CLIP score.

Networks: Radford et al., "Learning transferable visual models from natural language
supervision", 2021 (arXiv:2103.00020). Weights: `model.safetensors` of a CLIPModel on
huggingface.co (openai/clip-vit-base-patch32, -patch16, -large-patch14, -patch14-336, or
any other of that layout). The tensors' shapes say every size; heads, activation, epsilon
and the end-of-text token are in the config.json beside them.
"""

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ul.core.errors import DataError
from ul.core.types import Array, Float, Int, UInt8, typechecked
from ul.metrics.features import captions, weights
from ul.metrics.features.resize import bicubic_pil

Params = Mapping[str, jax.Array | np.ndarray]

FILE = "clip.safetensors"
SIZES = "clip_sizes.json"
# CLIP's own mean and standard deviation, of pixels in 0..1.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class Tower:
    """Sizes of one transformer; `hidden`: width inside its MLPs."""

    width: int
    depth: int
    heads: int
    hidden: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


@dataclasses.dataclass(frozen=True)
class Size:
    """Both towers; `side` and `patch` in pixels, `context` in tokens, `end`: the token
    whose place gives a caption's embedding, `embedding`: dimensions of the result."""

    image: Tower
    text: Tower
    side: int
    patch: int
    vocabulary: int
    context: int
    end: int
    embedding: int

    def __str__(self) -> str:
        image, text = self.image, self.text
        return (
            f"image {image.depth} x {image.width}, patch {self.patch}, "
            f"{self.side}x{self.side}; text {text.depth} x {text.width}; "
            f"{self.embedding} dimensions"
        )


# Ours: names in a CLIPModel. Several names are the rows of one matrix.
_OUTSIDE = {
    "image.cls": "vision_model.embeddings.class_embedding",
    "image.positions": "vision_model.embeddings.position_embedding.weight",
    "image.patch.kernel": "vision_model.embeddings.patch_embedding.weight",
    "image.before.scale": "vision_model.pre_layrnorm.weight",  # its spelling
    "image.before.bias": "vision_model.pre_layrnorm.bias",
    "image.norm.scale": "vision_model.post_layernorm.weight",
    "image.norm.bias": "vision_model.post_layernorm.bias",
    "image.projection.kernel": "visual_projection.weight",
    "text.tokens": "text_model.embeddings.token_embedding.weight",
    "text.positions": "text_model.embeddings.position_embedding.weight",
    "text.norm.scale": "text_model.final_layer_norm.weight",
    "text.norm.bias": "text_model.final_layer_norm.bias",
    "text.projection.kernel": "text_projection.weight",
}
_QKV = "self_attn.q_proj.{0} self_attn.k_proj.{0} self_attn.v_proj.{0}"
_BLOCK = {
    "norm1.scale": "layer_norm1.weight",
    "norm1.bias": "layer_norm1.bias",
    "qkv.kernel": _QKV.format("weight"),
    "qkv.bias": _QKV.format("bias"),
    "proj.kernel": "self_attn.out_proj.weight",
    "proj.bias": "self_attn.out_proj.bias",
    "norm2.scale": "layer_norm2.weight",
    "norm2.bias": "layer_norm2.bias",
    "fc1.kernel": "mlp.fc1.weight",
    "fc1.bias": "mlp.fc1.bias",
    "fc2.kernel": "mlp.fc2.weight",
    "fc2.bias": "mlp.fc2.bias",
}
_LAYER = {
    "image": "vision_model.encoder.layers.{}.",
    "text": "text_model.encoder.layers.{}.",
}


def _block_shapes(tower: Tower) -> dict[str, tuple[int, ...]]:
    width, hidden = tower.width, tower.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "qkv.kernel": (width, 3 * width),
        "qkv.bias": (3 * width,),
        "proj.kernel": (width, width),
        "fc1.kernel": (width, hidden),
        "fc1.bias": (hidden,),
        "fc2.kernel": (hidden, width),
    }
    return {name: (tower.depth, *shapes.get(name, (width,))) for name in _BLOCK}


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file; those of the blocks are stacked, [depth, ...]."""
    seen, read = size.image.width, size.text.width
    outside: dict[str, tuple[int, ...]] = {
        "image.positions": (1 + (size.side // size.patch) ** 2, seen),
        "image.patch.kernel": (size.patch, size.patch, 3, seen),
        "image.projection.kernel": (seen, size.embedding),
        "text.tokens": (size.vocabulary, read),
        "text.positions": (size.context, read),
        "text.projection.kernel": (read, size.embedding),
    }
    towers = {"image": size.image, "text": size.text}
    for name in _OUTSIDE:
        outside.setdefault(name, (towers[name.partition(".")[0]].width,))
    blocks = {
        f"{which}.blocks.{name}": shape
        for which, tower in towers.items()
        for name, shape in _block_shapes(tower).items()
    }
    return outside | blocks


def _tower(state: Mapping, which: str, said: Mapping, heads: int) -> Tower:
    """The tensors' sizes, and what only the config says; defaults are CLIPConfig's."""
    layer = _LAYER[which]
    hidden, width = state[layer.format(0) + "mlp.fc1.weight"].shape
    depth = 0
    while layer.format(depth) + "mlp.fc1.weight" in state:
        depth += 1
    heads = said.get("num_attention_heads", heads)
    activation = said.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise DataError(f"CLIP's hidden_act {activation!r} is not one of {known}")
    if width % heads:
        raise DataError(f"CLIP's config says {heads} heads for a width of {width}")
    epsilon = said.get("layer_norm_eps", 1e-5)
    return Tower(width, depth, heads, hidden, activation, epsilon)


def size_of(state: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> Size:
    """The sizes of a CLIPModel's tensors; `said`: its config.json.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: the config does not fit it, or has an activation that is not known.
    """
    # Old files have a second dict, which goes before the first.
    vision, text = (
        said.get(f"{which}_config", {}) | (said.get(f"{which}_config_dict") or {})
        for which in ("vision", "text")
    )
    positions = len(state[_OUTSIDE["image.positions"]])
    patch = state[_OUTSIDE["image.patch.kernel"]].shape[-1]
    vocabulary = len(state[_OUTSIDE["text.tokens"]])
    end = text.get("eos_token_id", 49407)
    return Size(
        image=_tower(state, "image", vision, heads=12),
        text=_tower(state, "text", text, heads=8),
        side=patch * round((positions - 1) ** 0.5),
        patch=patch,
        vocabulary=vocabulary,
        context=len(state[_OUTSIDE["text.positions"]]),
        # 2 is what configs of 2021 say; transformers then takes the highest token.
        end=vocabulary - 1 if end == 2 else end,
        embedding=len(state[_OUTSIDE["text.projection.kernel"]]),
    )


def from_torch(state: Mapping[str, np.ndarray], size: Size) -> dict[str, np.ndarray]:
    """The file's tensors from a CLIPModel's state; the logits' scale is left out.

    Raises:
      KeyError: the state lacks a tensor.
    """

    def tensor(name: str, sources: str, prefix: str = "") -> np.ndarray:
        parts = [np.asarray(state[prefix + s], np.float32) for s in sources.split()]
        whole = np.concatenate(parts)
        return whole.T if name.endswith("kernel") else whole

    out = {name: tensor(name, source) for name, source in _OUTSIDE.items()}
    # The transposed [w, h, c, out] of [out, c, h, w].
    out["image.patch.kernel"] = out["image.patch.kernel"].transpose(1, 0, 2, 3)
    for which, tower in (("image", size.image), ("text", size.text)):
        prefixes = [_LAYER[which].format(i) for i in range(tower.depth)]
        for name, source in _BLOCK.items():
            layers = [tensor(name, source, prefix) for prefix in prefixes]
            out[f"{which}.blocks.{name}"] = np.stack(layers)
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def network(size: Size) -> Any:
    """The interface that `weights` knows, of this size."""
    return types.SimpleNamespace(
        __name__=__name__,
        FILE=FILE,
        shapes=functools.partial(shapes, size),
        from_torch=functools.partial(from_torch, size=size),
    )


def beside(
    folder: epath.Path, state: Mapping[str, np.ndarray]
) -> tuple[Any, dict[str, bytes]]:
    """The network of a public file, and what is kept beside ours: sizes and tokenizer.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: the folder lacks config.json or the tokenizer, or they do not fit.
    """
    path = folder / "config.json"
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise DataError(f"{path}, which CLIP needs, cannot be read: {e}") from e
    size = size_of(state, said)
    tokenizer = captions.public(folder)
    captions.Tokens(tokenizer, size.context).check(size.vocabulary, size.end)
    sizes = json.dumps(dataclasses.asdict(size), indent=2, sort_keys=True) + "\n"
    return network(size), {SIZES: sizes.encode(), captions.FILE: tokenizer}


def load(weights_dir: epath.PathLike) -> tuple[dict[str, np.ndarray], Size]:
    """The tensors and their sizes, as on the day of their conversion.

    Raises:
      Missing: a file is not there.
      DataError: a file is damaged or is not that of the manifest.
    """
    about: Any = types.SimpleNamespace(__name__=__name__, FILE=FILE)
    content = weights.companion(weights_dir, about, SIZES)
    try:
        sizes = json.loads(content)
        towers = {which: Tower(**sizes[which]) for which in ("image", "text")}
        size = Size(**sizes | towers)
    except (KeyError, TypeError, ValueError) as e:
        said = f"{epath.Path(weights_dir) / SIZES} does not fit this version"
        raise DataError(f"{said} ({e}); convert CLIP again") from e
    return weights.load(weights_dir, network(size)), size


def preprocessed(
    image: UInt8[Array, "N H W 3"], side: int
) -> Float[Array, "N {side} {side} 3"]:
    """CLIP's own: the shorter side to `side` by PIL's bicubic of 8 bits, the middle
    square, then CLIP's mean and deviation. The longer side is rounded down, and so is
    what is cut, as transformers does."""
    height, width = image.shape[1:3]
    short = min(height, width)
    height, width = side * height // short, side * width // short
    x = bicubic_pil(image, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = x[:, top : top + side, left : left + side] / 255.0
    return (x - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(1, 1, 1, 3)


def _norm(x: jax.Array, p: Params, name: str, epsilon: float) -> jax.Array:
    x = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    return x * p[f"{name}.scale"][None, None] + p[f"{name}.bias"][None, None]


def _block(x: jax.Array, p: Params, *, tower: Tower, causal: bool) -> jax.Array:
    """Pre-norm attention and MLP on tokens [N, L, D]; causal: none sees a later one."""

    def linear(x: jax.Array, name: str) -> jax.Array:
        return x @ p[f"{name}.kernel"] + p[f"{name}.bias"][None, None]

    n, length, width = x.shape
    h = linear(_norm(x, p, "norm1", tower.epsilon), "qkv")
    h = h.reshape(n, length, 3, tower.heads, width // tower.heads)
    h = jax.nn.dot_product_attention(*jnp.moveaxis(h, 2, 0), is_causal=causal)
    x += linear(h.reshape(n, length, width), "proj")

    h = linear(_norm(x, p, "norm2", tower.epsilon), "fc1")
    return x + linear(ACTIVATIONS[tower.activation](h), "fc2")


def _blocks(
    x: jax.Array, params: Params, which: str, tower: Tower, causal: bool
) -> jax.Array:
    stacked = {name: params[f"{which}.blocks.{name}"] for name in _BLOCK}
    step = functools.partial(_block, tower=tower, causal=causal)
    return jax.lax.scan(lambda x, p: (step(x, p), None), x, stacked)[0]


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@typechecked
def image_embedding(
    params: Params, image: UInt8[Array, "N H W 3"], size: Size
) -> Float[Array, "N d"]:
    """The projected class token at length 1, of images of any size."""
    n, patch, grid = len(image), size.patch, size.side // size.patch
    tower = size.image
    with jax.default_matmul_precision("highest"):
        x = preprocessed(image, size.side).reshape(n, grid, patch, grid, patch, 3)
        x = jnp.einsum("ngphqc,pqcd->nghd", x, params["image.patch.kernel"])
        cls = jnp.broadcast_to(params["image.cls"], (n, 1, tower.width))
        x = jnp.concatenate([cls, x.reshape(n, grid**2, tower.width)], axis=1)
        x = x + params["image.positions"][None]
        x = _norm(x, params, "image.before", tower.epsilon)
        x = _blocks(x, params, "image", tower, causal=False)
        x = _norm(x[:, :1], params, "image.norm", tower.epsilon)[:, 0]
        return _unit(x @ params["image.projection.kernel"])


@typechecked
def text_embedding(
    params: Params, tokens: Int[Array, "N L"], size: Size
) -> Float[Array, "N d"]:
    """The projected state of the first end-of-text token at length 1; what follows that
    token is not seen."""
    tower = size.text
    with jax.default_matmul_precision("highest"):
        x = jnp.asarray(params["text.tokens"])[tokens] + params["text.positions"][None]
        x = _blocks(x, params, "text", tower, causal=True)
        x = _norm(x, params, "text.norm", tower.epsilon)
        ends = jnp.argmax(tokens == size.end, axis=1)
        x = jnp.take_along_axis(x, ends[:, None, None], axis=1)[:, 0]
        return _unit(x @ params["text.projection.kernel"])
