"""Parameters of the networks in the layouts and under the names of `networks.py`."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ul.core import trees

# Flax names submodules by class and number; these are the attributes in PyTorch.
_RENAMED: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r"RMSNorm_0\b", "norm1"),
    (r"RMSNorm_1\b", "norm2"),
    (r"\bConv_0\b", "conv1"),
    (r"\bConv_1\b", "conv2"),
    (r"TemporalConv_0\.Dense_0", "temporal"),
    (r"Modulation_0\.Dense_0", "modulation"),
    (r"Attention_0", "attention"),
    (r"head\.Dense_0", "head.linear"),
    (r"\btext\.(tokens|pooled)", r"text_\1"),
    (r"\bblock_(\d+)", r"blocks.\1"),
    (r"\bstage_(\d+)_(\d+)", r"stages.\1.\2"),
    (r"\b(down|up)_(\d+)_(\d+)", r"\1.\2.\3"),
    (r"\b(merge|split)_(\d+)\.Dense_0", r"\1.\2"),
    # The encoder numbers its downsampling by the stage that follows.
    (r"\bdown_(\d+)\.Dense_0", lambda m: f"down.{int(m[1]) - 1}"),
    (r"\b(down|up)_(\d+)", r"\1.\2"),
    (r"\b(kernel|scale|embedding)$", "weight"),
)


def state_dict(params: Any) -> dict[str, np.ndarray]:
    """Return the parameters of one network by their names in PyTorch.

    Linear kernels [in, out] become weights [out, in]; convolutions [H, W, in, out] become
    [out, in, H, W]. Stacked blocks become separate ones.
    """
    return {
        _rename(path): _to_layout(path, value)
        for path, value in _unstacked(trees.leaves_by_path(params))
    }


def _unstacked(leaves: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in leaves.items():
        name, value = path.replace("/", "."), np.asarray(leaf)
        if re.search(r"\.blocks\.", name):  # of nn.scan
            for i, part in enumerate(value):
                yield name.replace(".blocks.", f".block_{i}."), part
        else:
            yield name, value


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _to_layout(name: str, value: np.ndarray) -> np.ndarray:
    if name.endswith("kernel"):
        value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(value)
