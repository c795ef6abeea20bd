"""The Inception network of 2015-12-05 that FID, sFID and the inception score are defined by.

It differs from torchvision's Inception-v3: 1008 classes, average pools that do not count
padding, and a max pool in the last block (pytorch-fid and torch-fidelity have the same).
Batch normalization is folded into the convolutions when the weights are converted.

Public files that `from_torch` reads; all have the weights of classify_image_graph_def.pb:
pt_inception-2015-12-05-6726825d.pth (github.com/mseitzer/pytorch-fid, release fid_weights),
weights-inception-2015-12-05-6726825d.pth (github.com/toshas/torch-fidelity, v0.2.0), and
NVIDIA's TorchScript inception-2015-12-05.pt (stylegan2-ada-pytorch).
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, UInt8, typechecked
from ul.metrics.features import resize
from ul.metrics.features.weights import Params

FILE = "inception_v3_fid.safetensors"
SIDE = 299
CLASSES = 1008
# sFID uses the first channels of mixed_6/conv, so that 17 x 17 x 7 = 2023 is about the number
# of features of pool_3 (ADM's evaluations/evaluator.py).
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7
_EPSILON = 1e-3  # of batch normalization


class Conv2dLayer(NamedTuple):
    """A convolution, its batch normalization and a ReLU."""

    name: str
    features: int
    height: int
    width: int
    stride: int = 1
    padding: str = "SAME"


class Pool2dLayer(NamedTuple):
    """A 3x3 pool that takes the maximum or the mean."""

    kind: str  # "max" or "mean"
    stride: int = 1
    padding: str = "SAME"


# The convolutions of one step have the same input; their outputs are concatenated.
BranchStep = Pool2dLayer | tuple[Conv2dLayer, ...]
Branch = tuple[BranchStep, ...]
_STRIDE_2 = (2, "VALID")  # stride and padding of the layers that halve the resolution


def _conv_chain(name: str, *sizes: tuple) -> Branch:
    """Return convolutions in sequence, numbered from 1."""
    return tuple((Conv2dLayer(f"{name}_{i}", *s),) for i, s in enumerate(sizes, 1))


def _single_conv(name: str, *size) -> Branch:
    return ((Conv2dLayer(name, *size),),)


def _pool_branch(kind: str, features: int) -> Branch:
    return (Pool2dLayer(kind), *_single_conv("branch_pool", features, 1, 1))


def _inception_a(pool_features: int) -> tuple[Branch, ...]:
    """Return the branches of a block at 35x35 (InceptionA in torchvision's naming)."""
    return (
        _single_conv("branch1x1", 64, 1, 1),
        _conv_chain("branch5x5", (48, 1, 1), (64, 5, 5)),
        _conv_chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        _pool_branch("mean", pool_features),
    )


def _inception_c(n: int) -> tuple[Branch, ...]:
    """Return the branches of a block at 17x17 (InceptionC in torchvision's naming)."""
    double = ((n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7))
    return (
        _single_conv("branch1x1", 192, 1, 1),
        _conv_chain("branch7x7", (n, 1, 1), (n, 1, 7), (192, 7, 1)),
        _conv_chain("branch7x7dbl", *double),
        _pool_branch("mean", 192),
    )


def _inception_e(pool_kind: str) -> tuple[Branch, ...]:
    """Return the branches of a block at 8x8 (InceptionE in torchvision's naming)."""

    def fork(name):
        return (Conv2dLayer(f"{name}a", 384, 1, 3), Conv2dLayer(f"{name}b", 384, 3, 1))

    return (
        _single_conv("branch1x1", 320, 1, 1),
        (*_conv_chain("branch3x3", (384, 1, 1)), fork("branch3x3_2")),
        (
            *_conv_chain("branch3x3dbl", (448, 1, 1), (384, 3, 3)),
            fork("branch3x3dbl_3"),
        ),
        _pool_branch(pool_kind, 192),
    )


STEM: Branch = (
    *_single_conv("Conv2d_1a_3x3", 32, 3, 3, *_STRIDE_2),
    *_single_conv("Conv2d_2a_3x3", 32, 3, 3, 1, "VALID"),
    *_single_conv("Conv2d_2b_3x3", 64, 3, 3),
    Pool2dLayer("max", *_STRIDE_2),
    *_single_conv("Conv2d_3b_1x1", 80, 1, 1),
    *_single_conv("Conv2d_4a_3x3", 192, 3, 3, 1, "VALID"),
    Pool2dLayer("max", *_STRIDE_2),
)
# Blocks by name; the outputs of their branches are concatenated.
BLOCKS: dict[str, tuple[Branch, ...]] = {
    "": (STEM,),
    "Mixed_5b": _inception_a(32),
    "Mixed_5c": _inception_a(64),
    "Mixed_5d": _inception_a(64),
    "Mixed_6a": (
        _single_conv("branch3x3", 384, 3, 3, *_STRIDE_2),
        _conv_chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3, *_STRIDE_2)),
        (Pool2dLayer("max", *_STRIDE_2),),
    ),
    "Mixed_6b": _inception_c(128),
    "Mixed_6c": _inception_c(160),
    "Mixed_6d": _inception_c(160),
    "Mixed_6e": _inception_c(192),
    "Mixed_7a": (
        _conv_chain("branch3x3", (192, 1, 1), (320, 3, 3, *_STRIDE_2)),
        _conv_chain(
            "branch7x7x3",
            (192, 1, 1),
            (192, 1, 7),
            (192, 7, 1),
            (192, 3, 3, *_STRIDE_2),
        ),
        (Pool2dLayer("max", *_STRIDE_2),),
    ),
    "Mixed_7b": _inception_e("mean"),
    "Mixed_7c": _inception_e("max"),
}


def _path(block: str, conv: Conv2dLayer) -> str:
    return f"{block}.{conv.name}" if block else conv.name


def _convs() -> Iterator[tuple[str, int, Conv2dLayer]]:
    """Yield every convolution with its path and its number of input channels."""
    block_channels = 3
    for block, branches in BLOCKS.items():
        out_channels = 0
        for branch in branches:
            in_channels = block_channels
            for step in branch:
                if not isinstance(step, Pool2dLayer):
                    yield from ((_path(block, c), in_channels, c) for c in step)
                    in_channels = sum(c.features for c in step)
            out_channels += in_channels
        block_channels = out_channels


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file.

    Kernels are [height, width, in, out]; biases are [out].
    """
    tensors: dict[str, tuple[int, ...]] = {"fc.weight": (2048, CLASSES)}
    for path, in_channels, conv in _convs():
        shape = (conv.height, conv.width, in_channels, conv.features)
        tensors[f"{path}.weight"] = shape
        tensors[f"{path}.bias"] = (conv.features,)
    return tensors


def _numbered(stem: str, i: int) -> str:
    return f"{stem}_{i}" if i else stem


def torchscript_names() -> dict[str, str]:
    """Return the names in NVIDIA's TorchScript of the convolutions at each path.

    They follow those of the graph: mixed_<n>/tower_<n>/conv_<n>, and mixed/conv_<n> where a
    branch forks.
    """
    names = {}
    for i, (block, branches) in enumerate(BLOCKS.items(), -1):
        forks = any(
            not isinstance(step, Pool2dLayer) and len(step) > 1
            for branch in branches
            for step in branch
        )
        separator = "_" if forks else "."  # blocks with forks have no towers inside
        num_towers = 0
        for branch in branches:
            prefix = f"layers.{_numbered('mixed', i)}." if block else "layers."
            if block and len(branch) > 1:
                prefix += _numbered("tower", num_towers) + separator
                num_towers += 1
            steps = [step for step in branch if not isinstance(step, Pool2dLayer)]
            for j, step in enumerate(steps):
                for k, conv in enumerate(step):
                    fork = f"mixed{separator}{_numbered('conv', k)}"
                    name = fork if len(step) > 1 else _numbered("conv", j)
                    names[_path(block, conv)] = prefix + name
    return names


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the file's tensors from the state of one of the public files.

    y = gamma (conv(x) - mean) / sqrt(var + 0.001) + beta becomes one convolution with a
    bias. The classifier's bias is left out: the inception score is defined without it.

    Raises:
      KeyError: the state lacks a tensor.
    """
    script = torchscript_names() if "layers.conv.weight" in state else None
    out = {"fc.weight": state["output.weight" if script else "fc.weight"].T}
    for path, _, _ in _convs():
        if script:
            layer = script[path]
            kernel = state[f"{layer}.weight"]
            norm = [state[f"{layer}.{name}"] for name in ("beta", "mean", "var")]
            gamma = np.ones_like(norm[0])  # the TorchScript has none
        else:
            kernel = state[f"{path}.conv.weight"]
            names = ("bias", "running_mean", "running_var")
            norm = [state[f"{path}.bn.{name}"] for name in names]
            gamma = state[f"{path}.bn.weight"]
        beta, mean, var = (np.asarray(v, np.float64) for v in norm)
        scale = gamma / np.sqrt(var + _EPSILON)
        out[f"{path}.weight"] = (kernel * scale[:, None, None, None]).transpose(
            2, 3, 1, 0
        )
        out[f"{path}.bias"] = beta - mean * scale
    return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}


def _convolve(params: Params, block: str, conv: Conv2dLayer, x: Array) -> Array:
    path = _path(block, conv)
    y = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(params[f"{path}.weight"]),
        (conv.stride, conv.stride),
        conv.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(y + params[f"{path}.bias"][None, None, None])


def _pool(pool: Pool2dLayer, x: Array) -> Array:
    window = ((1, 3, 3, 1), (1, pool.stride, pool.stride, 1), pool.padding)
    if pool.kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, *window)
    # The mean is over pixels of the image only, not over the padding.
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, *window)


def _branch(params: Params, block: str, branch: Branch, x: Array) -> Array:
    for step in branch:
        if isinstance(step, Pool2dLayer):
            x = _pool(step, x)
        else:
            x = jnp.concatenate([_convolve(params, block, c, x) for c in step], -1)
    return x


def block_outputs(params: Params, x: Array) -> Iterator[tuple[str, list[Array]]]:
    """Yield each block's name and the outputs of its branches.

    x: [N, 299, 299, 3] in -1..1.
    """
    for block, branches in BLOCKS.items():
        outputs = [_branch(params, block, branch, x) for branch in branches]
        yield block, outputs
        x = jnp.concatenate(outputs, -1)


@typechecked
def features(params: Params, image: UInt8[Array, "N H W 3"]) -> dict[str, Array]:
    """Return three sets of features of images of any size.

    pool: [N, 2048], pool_3, for FID.
    spatial: [N, 2023], for sFID.
    probs: [N, 1008], class probabilities without the classifier's bias, for the inception
      score.
    """
    x = (resize.bilinear_tf1(image, SIDE, SIDE) - 128.0) / 128.0
    for block, outputs in block_outputs(params, x):
        if block == SPATIAL_BLOCK:
            spatial = outputs[0][..., :SPATIAL_CHANNELS]
    pool = jnp.mean(jnp.concatenate(outputs, -1), axis=(1, 2))
    logits = jnp.dot(pool, params["fc.weight"], precision=jax.lax.Precision.HIGHEST)
    return {
        "pool": pool,
        "spatial": spatial.reshape(len(spatial), -1),
        "probs": jax.nn.softmax(logits),
    }
