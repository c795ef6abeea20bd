"""A small CLIP of random weights, with a tokenizer, as a public folder has it."""

import json

import numpy as np
import safetensors.numpy

from tests.lib import torch_states
from ul.metrics.features import clip, weights

# Both activations, an MLP that is not four times as wide, heads that do not follow.
TINY = clip.Size(
    image=clip.Tower(width=32, depth=3, heads=4, hidden=48),
    text=clip.Tower(width=24, depth=2, heads=3, hidden=40, activation="gelu"),
    side=24,
    patch=8,
    vocabulary=520,
    context=12,
    end=519,
    embedding=16,
)
MERGES = (("c", "a"), ("ca", "t</w>"), ("#", "#</w>"), ("d", "o"), ("do", "g</w>"))


def vocabulary():
    """CLIP's order: bytes, bytes that end a word, merges, start and end."""
    printed = [chr(i) for i in range(33, 127)]
    # The other bytes are printed as letters from 256 on.
    every = [*printed, *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
    every += [chr(256 + i) for i in range(256 - len(every))]
    tokens = every + [f"{c}</w>" for c in every] + ["".join(pair) for pair in MERGES]
    tokens += ["unused", "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def parameters(size=TINY, seed=0):
    """Random tensors of the file, so scaled that every part changes the embeddings."""
    return torch_states.tensors(clip.shapes(size), seed)


def state(params):
    """`params` under the names of a CLIPModel, with what else its files have."""
    out = {
        "logit_scale": np.asarray(4.6, np.float32),
        "text_model.embeddings.position_ids": np.arange(12)[None],
    }

    def put(name, value):
        value = np.asarray(value)
        if name == "image.patch.kernel":
            value = value.transpose(3, 2, 0, 1)
        elif name.endswith("kernel"):
            value = value.T
        return np.ascontiguousarray(value)

    for name, source in clip._OUTSIDE.items():
        out[source] = put(name, params[name])
    for which, layer in clip._LAYER.items():
        for name, sources in clip._BLOCK.items():
            sources = sources.split()
            for i, value in enumerate(params[f"{which}.blocks.{name}"]):
                parts = np.split(put(name, value), len(sources))
                for source, part in zip(sources, parts, strict=True):
                    out[layer.format(i) + source] = np.ascontiguousarray(part)
    return out


def config(size=TINY):
    """What config.json says; the sizes that the tensors show are there as well."""
    image, text = size.image, size.text
    both = [
        {
            "hidden_size": tower.width,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.hidden,
            "hidden_act": tower.activation,
        }
        for tower in (image, text)
    ]
    return {
        "model_type": "clip",
        "projection_dim": size.embedding,
        "vision_config": both[0] | {"image_size": size.side, "patch_size": size.patch},
        "text_config": both[1]
        | {
            "vocab_size": size.vocabulary,
            "max_position_embeddings": size.context,
            "bos_token_id": size.end - 1,
            "eos_token_id": size.end,
            "pad_token_id": 0,
        },
    }


def write(folder, params=None, size=TINY):
    """The public folder: model.safetensors, config.json, vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    params = parameters(size) if params is None else params
    safetensors.numpy.save_file(state(params), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(size)))
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def converted(root):
    """The folder of weights that `launch.convert clip` makes of it."""
    public = write(root / "public")
    given = safetensors.numpy.load_file(public / "model.safetensors")
    network, more = clip.beside(public, given)
    about = {"licence": "MIT", "source": "https://x.org/clip"}
    weights.save(
        root / "w", network, network.from_torch(given), companions=more, **about
    )
    return root / "w"
