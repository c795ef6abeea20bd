"""Parts that the transformers of CLIP and DINOv2 have in common.

Parameters are a flat mapping; `<name>.kernel` and `<name>.bias` belong to a linear layer,
`<name>.scale` and `<name>.bias` to a layer norm.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from ul.metrics.features.weights import Params


def linear(x: jax.Array, params: Params, name: str) -> jax.Array:
    """Apply a linear layer to tokens [N, L, D]."""
    return x @ params[f"{name}.kernel"] + params[f"{name}.bias"][None, None]


def layer_norm(x: jax.Array, params: Params, name: str, epsilon: float) -> jax.Array:
    """Normalize the channels of tokens [N, L, D], then scale and shift them."""
    x = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    return x * params[f"{name}.scale"][None, None] + params[f"{name}.bias"][None, None]


def convert_tensor(
    state: Mapping[str, np.ndarray], name: str, sources: str, prefix: str = ""
) -> np.ndarray:
    """Return a tensor of the file, float32, from a PyTorch state; kernels are transposed.

    `sources` are names in the state, after `prefix`, separated by spaces: the rows of one
    matrix may be stored as several tensors.

    Raises:
      KeyError: the state lacks a tensor.
    """
    parts = [np.asarray(state[prefix + s], np.float32) for s in sources.split()]
    tensor = np.concatenate(parts)
    return tensor.T if name.endswith("kernel") else tensor


def convert_blocks(
    state: Mapping[str, np.ndarray],
    sources: Mapping[str, str],
    prefixes: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the tensors of all blocks, stacked [depth, ...]; one prefix for each block.

    Raises:
      KeyError: the state lacks a tensor.
    """
    return {
        name: np.stack(
            [convert_tensor(state, name, source, prefix) for prefix in prefixes]
        )
        for name, source in sources.items()
    }
