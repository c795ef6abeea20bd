"""CLIP's two towers: unit embeddings of images and of captions, for the CLIP score.

Networks: Radford et al., "Learning transferable visual models from natural language
supervision", 2021 (arXiv:2103.00020). Weights: `model.safetensors` of a CLIPModel on
huggingface.co (openai/clip-vit-base-patch32, -patch16, -large-patch14, -patch14-336, or
any other of that layout). Most sizes follow from the shapes of the tensors; the number of
heads, the activation, epsilon and the end-of-text token are in config.json.
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

from ul.core import files
from ul.core.errors import DataError
from ul.core.types import Array, Float, Int, UInt8, typechecked
from ul.metrics.features import captions, weights
from ul.metrics.features.resize import bicubic_pil
from ul.metrics.features.transformer import (
    convert_blocks,
    convert_tensor,
    layer_norm,
    linear,
)
from ul.metrics.features.weights import Params

NAME = "clip"
FILE = "clip.safetensors"
SIZES_FILE = "clip_sizes.json"
# Mean and standard deviation that CLIP was trained with, for pixels in 0..1.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class TowerSizes:
    """Sizes of one transformer; `hidden` is the width inside its MLPs."""

    width: int
    depth: int
    heads: int
    hidden: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


@dataclasses.dataclass(frozen=True)
class ClipSizes:
    """Sizes of both towers. The field names are the keys of clip_sizes.json.

    side, patch: side of the image and of one patch, in pixels.
    vocabulary: number of tokens; context: tokens per caption.
    end: the end-of-text token, whose state gives the caption's embedding.
    embedding: dimensions of the embeddings.
    """

    image: TowerSizes
    text: TowerSizes
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


# Names in the file: names in a CLIPModel. Several names are the rows of one matrix.
_OUTSIDE_BLOCKS = {
    "image.cls": "vision_model.embeddings.class_embedding",
    "image.positions": "vision_model.embeddings.position_embedding.weight",
    "image.patch.kernel": "vision_model.embeddings.patch_embedding.weight",
    "image.before.scale": "vision_model.pre_layrnorm.weight",  # spelled like this
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
_BLOCK_PREFIX = {
    "image": "vision_model.encoder.layers.{}.",
    "text": "text_model.encoder.layers.{}.",
}


def _block_shapes(tower: TowerSizes) -> dict[str, tuple[int, ...]]:
    width, hidden = tower.width, tower.hidden
    special: dict[str, tuple[int, ...]] = {
        "qkv.kernel": (width, 3 * width),
        "qkv.bias": (3 * width,),
        "proj.kernel": (width, width),
        "fc1.kernel": (width, hidden),
        "fc1.bias": (hidden,),
        "fc2.kernel": (hidden, width),
    }
    return {name: (tower.depth, *special.get(name, (width,))) for name in _BLOCK}


def shapes(sizes: ClipSizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file; blocks are stacked, [depth, ...]."""
    image_width, text_width = sizes.image.width, sizes.text.width
    outside: dict[str, tuple[int, ...]] = {
        "image.positions": (1 + (sizes.side // sizes.patch) ** 2, image_width),
        "image.patch.kernel": (sizes.patch, sizes.patch, 3, image_width),
        "image.projection.kernel": (image_width, sizes.embedding),
        "text.tokens": (sizes.vocabulary, text_width),
        "text.positions": (sizes.context, text_width),
        "text.projection.kernel": (text_width, sizes.embedding),
    }
    towers = {"image": sizes.image, "text": sizes.text}
    for name in _OUTSIDE_BLOCKS:
        outside.setdefault(name, (towers[name.partition(".")[0]].width,))
    blocks = {
        f"{which}.blocks.{name}": shape
        for which, tower in towers.items()
        for name, shape in _block_shapes(tower).items()
    }
    return outside | blocks


def _infer_tower(
    state: Mapping[str, np.ndarray],
    which: str,
    tower_json: Mapping[str, Any],
    default_heads: int,
) -> TowerSizes:
    """Return one tower's sizes; defaults are those of CLIPConfig."""
    prefix = _BLOCK_PREFIX[which]
    hidden, width = state[prefix.format(0) + "mlp.fc1.weight"].shape
    depth = 0
    while prefix.format(depth) + "mlp.fc1.weight" in state:
        depth += 1
    heads = tower_json.get("num_attention_heads", default_heads)
    activation = tower_json.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        raise DataError(
            f"hidden_act in CLIP's config.json must be one of {', '.join(ACTIVATIONS)}; "
            f"got {activation!r}."
        )
    if width % heads:
        raise DataError(
            "num_attention_heads in CLIP's config.json must divide the width of the "
            f"{which} tower; got {heads} heads for a width of {width}."
        )
    epsilon = tower_json.get("layer_norm_eps", 1e-5)
    return TowerSizes(width, depth, heads, hidden, activation, epsilon)


def infer_sizes(
    state: Mapping[str, np.ndarray], config_json: Mapping[str, Any]
) -> ClipSizes:
    """Return the sizes of a CLIPModel from its tensors and its config.json.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: the config does not fit it, or has an unknown activation.
    """
    # Old files have a second dict, which takes precedence over the first.
    vision, text = (
        config_json.get(f"{which}_config", {})
        | (config_json.get(f"{which}_config_dict") or {})
        for which in ("vision", "text")
    )
    num_positions = len(state[_OUTSIDE_BLOCKS["image.positions"]])
    patch = state[_OUTSIDE_BLOCKS["image.patch.kernel"]].shape[-1]
    vocabulary = len(state[_OUTSIDE_BLOCKS["text.tokens"]])
    end = text.get("eos_token_id", 49407)
    return ClipSizes(
        image=_infer_tower(state, "image", vision, default_heads=12),
        text=_infer_tower(state, "text", text, default_heads=8),
        side=patch * round((num_positions - 1) ** 0.5),
        patch=patch,
        vocabulary=vocabulary,
        context=len(state[_OUTSIDE_BLOCKS["text.positions"]]),
        # Configs of 2021 have 2 here; transformers then takes the highest token.
        end=vocabulary - 1 if end == 2 else end,
        embedding=len(state[_OUTSIDE_BLOCKS["text.projection.kernel"]]),
    )


def from_torch(
    state: Mapping[str, np.ndarray], sizes: ClipSizes
) -> dict[str, np.ndarray]:
    """Return the file's tensors from a CLIPModel's state; the logit scale is left out.

    Raises:
      KeyError: the state lacks a tensor.
    """
    out = {
        name: convert_tensor(state, name, source)
        for name, source in _OUTSIDE_BLOCKS.items()
    }
    # convert_tensor turned [out, c, h, w] into [w, h, c, out].
    out["image.patch.kernel"] = out["image.patch.kernel"].transpose(1, 0, 2, 3)
    for which, tower in (("image", sizes.image), ("text", sizes.text)):
        prefixes = [_BLOCK_PREFIX[which].format(i) for i in range(tower.depth)]
        blocks = convert_blocks(state, _BLOCK, prefixes)
        out |= {f"{which}.blocks.{name}": value for name, value in blocks.items()}
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def feature_module(sizes: ClipSizes) -> weights.FeatureModule:
    """Return the interface that `weights` expects of a network, for these sizes."""
    module: Any = types.SimpleNamespace(
        __name__=__name__,
        FILE=FILE,
        shapes=functools.partial(shapes, sizes),
        from_torch=functools.partial(from_torch, sizes=sizes),
    )
    return module


def module_and_companions(
    folder: epath.Path, state: Mapping[str, np.ndarray]
) -> tuple[weights.FeatureModule, dict[str, bytes]]:
    """Return the network of a public folder and the files to store with its weights.

    These companions are the sizes and the tokenizer. `state` are the folder's tensors.

    Raises:
      KeyError: the state lacks a tensor.
      DataError: the folder lacks config.json or the tokenizer, or they do not fit.
    """
    path = folder / "config.json"
    try:
        config_json = json.loads(files.read_text(path))
    except (OSError, ValueError) as e:
        raise DataError(
            f"CLIP needs the config.json of its weights, but {path} cannot be read: {e}"
        ) from e
    sizes = infer_sizes(state, config_json)
    tokenizer = captions.read_tokenizer(folder)
    captions.ClipTokenizer(tokenizer, sizes.context).check(sizes.vocabulary, sizes.end)
    text = json.dumps(dataclasses.asdict(sizes), indent=2, sort_keys=True) + "\n"
    companions = {SIZES_FILE: text.encode(), captions.TOKENIZER_FILE: tokenizer}
    return feature_module(sizes), companions


def load(weights_dir: epath.PathLike) -> tuple[dict[str, np.ndarray], ClipSizes]:
    """Return the converted tensors and their sizes.

    Raises:
      MissingWeights: a file is missing.
      DataError: a file is damaged or differs from its entry in the manifest.
    """
    content = weights.read_companion(weights_dir, NAME, SIZES_FILE)
    try:
        fields = json.loads(content)
        towers = {which: TowerSizes(**fields[which]) for which in ("image", "text")}
        sizes = ClipSizes(**fields | towers)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(
            f"{epath.Path(weights_dir) / SIZES_FILE} must have the sizes that this "
            f"version of the code expects, but it was written by another ({e}). "
            "Convert CLIP again with python -m ul convert."
        ) from e
    return weights.load(weights_dir, feature_module(sizes)), sizes


def preprocess(
    image: UInt8[Array, "N H W 3"], side: int
) -> Float[Array, "N {side} {side} 3"]:
    """Resize and crop images to side x side and normalize them, as CLIP's own code does.

    PIL's bicubic of 8 bits brings the shorter side to `side`; the central square is
    cropped. The length of the longer side and the crop's offset are rounded down, as in
    transformers.
    """
    height, width = image.shape[1:3]
    shorter = min(height, width)
    height, width = side * height // shorter, side * width // shorter
    x = bicubic_pil(image, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = x[:, top : top + side, left : left + side] / 255.0
    return (x - MEAN.reshape(1, 1, 1, 3)) / STD.reshape(1, 1, 1, 3)


def _block(x: jax.Array, p: Params, *, tower: TowerSizes, causal: bool) -> jax.Array:
    """Apply pre-norm attention and MLP to tokens [N, L, D]."""
    n, length, width = x.shape
    h = linear(layer_norm(x, p, "norm1", tower.epsilon), p, "qkv")
    h = h.reshape(n, length, 3, tower.heads, width // tower.heads)
    h = jax.nn.dot_product_attention(*jnp.moveaxis(h, 2, 0), is_causal=causal)
    x += linear(h.reshape(n, length, width), p, "proj")

    h = linear(layer_norm(x, p, "norm2", tower.epsilon), p, "fc1")
    return x + linear(ACTIVATIONS[tower.activation](h), p, "fc2")


def _blocks(
    x: jax.Array, params: Params, which: str, tower: TowerSizes, causal: bool
) -> jax.Array:
    stacked = {name: params[f"{which}.blocks.{name}"] for name in _BLOCK}
    step = functools.partial(_block, tower=tower, causal=causal)
    return jax.lax.scan(lambda x, p: (step(x, p), None), x, stacked)[0]


def _normalize(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@typechecked
def embed_images(
    params: Params, image: UInt8[Array, "N H W 3"], sizes: ClipSizes
) -> Float[Array, "N d"]:
    """Return unit embeddings of images of any size: the projected class token."""
    n, patch, grid = len(image), sizes.patch, sizes.side // sizes.patch
    tower = sizes.image
    with jax.default_matmul_precision("highest"):
        x = preprocess(image, sizes.side).reshape(n, grid, patch, grid, patch, 3)
        x = jnp.einsum("ngphqc,pqcd->nghd", x, params["image.patch.kernel"])
        cls = jnp.broadcast_to(params["image.cls"], (n, 1, tower.width))
        x = jnp.concatenate([cls, x.reshape(n, grid**2, tower.width)], axis=1)
        x = x + params["image.positions"][None]
        x = layer_norm(x, params, "image.before", tower.epsilon)
        x = _blocks(x, params, "image", tower, causal=False)
        x = layer_norm(x[:, :1], params, "image.norm", tower.epsilon)[:, 0]
        return _normalize(x @ params["image.projection.kernel"])


@typechecked
def embed_tokens(
    params: Params, tokens: Int[Array, "N L"], sizes: ClipSizes
) -> Float[Array, "N d"]:
    """Return unit embeddings of captions: the projected state of the first end token.

    Attention is causal, so tokens after the first end token have no influence.
    """
    tower = sizes.text
    with jax.default_matmul_precision("highest"):
        x = jnp.asarray(params["text.tokens"])[tokens] + params["text.positions"][None]
        x = _blocks(x, params, "text", tower, causal=True)
        x = layer_norm(x, params, "text.norm", tower.epsilon)
        ends = jnp.argmax(tokens == sizes.end, axis=1)
        x = jnp.take_along_axis(x, ends[:, None, None], axis=1)[:, 0]
        return _normalize(x @ params["text.projection.kernel"])
