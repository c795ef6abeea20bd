"""A small CLIP with random weights and a tokenizer, in the layout of a public folder."""

import json

import numpy as np
import safetensors.numpy

from tests.lib import torch_states
from ul.metrics.features import clip, weights

# Both activations, an MLP that is not four times as wide, and two numbers of heads.
TINY = clip.ClipSizes(
    image=clip.TowerSizes(width=32, depth=3, heads=4, hidden=48),
    text=clip.TowerSizes(width=24, depth=2, heads=3, hidden=40, activation="gelu"),
    side=24,
    patch=8,
    vocabulary=520,
    context=12,
    end=519,
    embedding=16,
)
MERGES = (("c", "a"), ("ca", "t</w>"), ("#", "#</w>"), ("d", "o"), ("do", "g</w>"))


def vocabulary():
    """Return tokens in CLIP's order: bytes, word-final bytes, merges, start and end."""
    printable = [chr(i) for i in range(33, 127)]
    printable += [*map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
    # The other bytes are represented by letters from 256 on.
    alphabet = printable + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = alphabet + [f"{c}</w>" for c in alphabet]
    tokens += ["".join(pair) for pair in MERGES]
    tokens += ["unused", "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def random_parameters(sizes=TINY, seed=0):
    """Return random tensors of the file, scaled so that each changes the embeddings."""
    return torch_states.random_tensors(clip.shapes(sizes), seed)


def public_state(params):
    """Return `params` under the names of a CLIPModel, with the other tensors of its file."""
    out = {
        "logit_scale": np.asarray(4.6, np.float32),
        "text_model.embeddings.position_ids": np.arange(12)[None],
    }

    def to_torch(name, value):
        value = np.asarray(value)
        if name == "image.patch.kernel":
            value = value.transpose(3, 2, 0, 1)
        elif name.endswith("kernel"):
            value = value.T
        return np.ascontiguousarray(value)

    for name, source in clip._OUTSIDE_BLOCKS.items():
        out[source] = to_torch(name, params[name])
    for which, prefix in clip._BLOCK_PREFIX.items():
        for name, sources in clip._BLOCK.items():
            sources = sources.split()
            for i, value in enumerate(params[f"{which}.blocks.{name}"]):
                parts = np.split(to_torch(name, value), len(sources))
                for source, part in zip(sources, parts, strict=True):
                    out[prefix.format(i) + source] = np.ascontiguousarray(part)
    return out


def public_config(sizes=TINY):
    """Return the config.json, which also states the sizes that follow from the tensors."""
    image, text = (
        {
            "hidden_size": tower.width,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.hidden,
            "hidden_act": tower.activation,
        }
        for tower in (sizes.image, sizes.text)
    )
    return {
        "model_type": "clip",
        "projection_dim": sizes.embedding,
        "vision_config": image | {"image_size": sizes.side, "patch_size": sizes.patch},
        "text_config": text
        | {
            "vocab_size": sizes.vocabulary,
            "max_position_embeddings": sizes.context,
            "bos_token_id": sizes.end - 1,
            "eos_token_id": sizes.end,
            "pad_token_id": 0,
        },
    }


def write_public_folder(folder, params=None, sizes=TINY):
    """Write model.safetensors, config.json, vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    params = random_parameters(sizes) if params is None else params
    safetensors.numpy.save_file(public_state(params), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(public_config(sizes)))
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def write_converted_folder(root):
    """Write a public folder and convert it as `ul convert clip` does."""
    public = write_public_folder(root / "public")
    state = safetensors.numpy.load_file(public / "model.safetensors")
    module, companions = clip.module_and_companions(public, state)
    weights.save(
        root / "w",
        module,
        module.from_torch(state),
        license="MIT",
        source="https://x.org/clip",
        companions=companions,
    )
    return root / "w"
