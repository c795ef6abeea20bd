"""The Inception network of 2015-12-05 that FID, sFID and the inception score are defined by.

It differs from torchvision's Inception-v3: 1008 classes, average pools that do not count
padding, and a max pool in the last block (pytorch-fid and torch-fidelity have the same).
Batch normalisation is folded into the convolutions when the weights are converted.

Public files that `from_torch` reads, all of the weights of classify_image_graph_def.pb:
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

FILE = "inception_v3_fid.safetensors"
SIDE = 299
CLASSES = 1008
# sFID: the first channels of mixed_6/conv, about as many numbers as pool_3 has (ADM's
# evaluations/evaluator.py); 17 x 17 x 7 = 2023.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7
_EPSILON = 1e-3  # of the batch normalisation


class Conv(NamedTuple):
    """A convolution, its batch normalisation and a ReLU."""

    name: str
    features: int
    height: int
    width: int
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """A 3x3 pool."""

    kind: str  # "max" or "mean"
    stride: int = 1
    padding: str = "SAME"


# Convolutions of one step read the same input; their outputs are concatenated.
Step = Pool | tuple[Conv, ...]
Branch = tuple[Step, ...]
DOWN = (2, "VALID")


def _chain(name: str, *sizes: tuple) -> Branch:
    """Convolutions in a row, numbered from 1."""
    return tuple((Conv(f"{name}_{i}", *s),) for i, s in enumerate(sizes, 1))


def _one(name: str, *size) -> Branch:
    return ((Conv(name, *size),),)


def _pooled(kind: str, features: int) -> Branch:
    return (Pool(kind), *_one("branch_pool", features, 1, 1))


def _a(pooled: int) -> tuple[Branch, ...]:
    """35x35 positions."""
    return (
        _one("branch1x1", 64, 1, 1),
        _chain("branch5x5", (48, 1, 1), (64, 5, 5)),
        _chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        _pooled("mean", pooled),
    )


def _c(n: int) -> tuple[Branch, ...]:
    """17x17 positions."""
    double = ((n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7))
    return (
        _one("branch1x1", 192, 1, 1),
        _chain("branch7x7", (n, 1, 1), (n, 1, 7), (192, 7, 1)),
        _chain("branch7x7dbl", *double),
        _pooled("mean", 192),
    )


def _e(kind: str) -> tuple[Branch, ...]:
    """8x8 positions."""

    def fork(name):
        return (Conv(f"{name}a", 384, 1, 3), Conv(f"{name}b", 384, 3, 1))

    return (
        _one("branch1x1", 320, 1, 1),
        (*_chain("branch3x3", (384, 1, 1)), fork("branch3x3_2")),
        (
            *_chain("branch3x3dbl", (448, 1, 1), (384, 3, 3)),
            fork("branch3x3dbl_3"),
        ),
        _pooled(kind, 192),
    )


STEM: Branch = (
    *_one("Conv2d_1a_3x3", 32, 3, 3, *DOWN),
    *_one("Conv2d_2a_3x3", 32, 3, 3, 1, "VALID"),
    *_one("Conv2d_2b_3x3", 64, 3, 3),
    Pool("max", *DOWN),
    *_one("Conv2d_3b_1x1", 80, 1, 1),
    *_one("Conv2d_4a_3x3", 192, 3, 3, 1, "VALID"),
    Pool("max", *DOWN),
)
# Blocks by name; their branches' outputs are concatenated.
NETWORK: dict[str, tuple[Branch, ...]] = {
    "": (STEM,),
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        _one("branch3x3", 384, 3, 3, *DOWN),
        _chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3, *DOWN)),
        (Pool("max", *DOWN),),
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        _chain("branch3x3", (192, 1, 1), (320, 3, 3, *DOWN)),
        _chain(
            "branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, *DOWN)
        ),
        (Pool("max", *DOWN),),
    ),
    "Mixed_7b": _e("mean"),
    "Mixed_7c": _e("max"),
}


def _path(block: str, conv: Conv) -> str:
    return f"{block}.{conv.name}" if block else conv.name


def _convs() -> Iterator[tuple[str, int, Conv]]:
    """Every convolution with its path and the number of channels that it reads."""
    channels = 3
    for block, branches in NETWORK.items():
        joined = 0
        for branch in branches:
            reads = channels
            for step in branch:
                if not isinstance(step, Pool):
                    yield from ((_path(block, c), reads, c) for c in step)
                    reads = sum(c.features for c in step)
            joined += reads
        channels = joined


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the file: kernels [height, width, in, out], biases [out]."""
    tensors: dict[str, tuple[int, ...]] = {"fc.weight": (2048, CLASSES)}
    for path, reads, conv in _convs():
        tensors[f"{path}.weight"] = (conv.height, conv.width, reads, conv.features)
        tensors[f"{path}.bias"] = (conv.features,)
    return tensors


def _numbered(stem: str, i: int) -> str:
    return f"{stem}_{i}" if i else stem


def torchscript_names() -> dict[str, str]:
    """Paths of the convolutions to those in NVIDIA's TorchScript, which follow the graph's:
    mixed_<n>/tower_<n>/conv_<n>, and mixed/conv_<n> at a fork."""
    names = {}
    for i, (block, branches) in enumerate(NETWORK.items(), -1):
        forks = any(not isinstance(s, Pool) and len(s) > 1 for b in branches for s in b)
        joint = "_" if forks else "."  # blocks with forks have no towers inside
        towers = 0
        for branch in branches:
            place = f"layers.{_numbered('mixed', i)}." if block else "layers."
            if block and len(branch) > 1:
                place += _numbered("tower", towers) + joint
                towers += 1
            steps = [s for s in branch if not isinstance(s, Pool)]
            for j, step in enumerate(steps):
                for k, conv in enumerate(step):
                    fork = f"mixed{joint}{_numbered('conv', k)}"
                    name = fork if len(step) > 1 else _numbered("conv", j)
                    names[_path(block, conv)] = place + name
    return names


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file's tensors from the state of one of the public files.

    y = gamma (conv(x) - mean) / sqrt(var + 0.001) + beta becomes one convolution with
    bias. The classifier's bias is left out: the inception score is taken without it.

    Raises:
      KeyError: the state lacks a tensor.
    """
    script = torchscript_names() if "layers.conv.weight" in state else None
    out = {"fc.weight": state["output.weight" if script else "fc.weight"].T}
    for path, _, _ in _convs():
        if script:  # there gamma is 1
            of = script[path]
            kernel = state[f"{of}.weight"]
            norm = [state[f"{of}.{name}"] for name in ("beta", "mean", "var")]
            gamma = np.ones_like(norm[0])
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


def _convolve(params: Mapping, block: str, conv: Conv, x: Array) -> Array:
    path = _path(block, conv)
    y = jax.lax.conv_general_dilated(
        x,
        params[f"{path}.weight"],
        (conv.stride, conv.stride),
        conv.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(y + params[f"{path}.bias"][None, None, None])


def _pool(pool: Pool, x: Array) -> Array:
    window = ((1, 3, 3, 1), (1, pool.stride, pool.stride, 1), pool.padding)
    if pool.kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, *window)
    # Padding is not counted.
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, *window)


def _branch(params: Mapping, block: str, branch: Branch, x: Array) -> Array:
    for step in branch:
        if isinstance(step, Pool):
            x = _pool(step, x)
        else:
            x = jnp.concatenate([_convolve(params, block, c, x) for c in step], -1)
    return x


def blocks(params: Mapping, x: Array) -> Iterator[tuple[str, list[Array]]]:
    """Each block's name and what its branches give; x [N, 299, 299, 3] in -1..1."""
    for block, branches in NETWORK.items():
        outputs = [_branch(params, block, b, x) for b in branches]
        yield block, outputs
        x = jnp.concatenate(outputs, -1)


@typechecked
def features(params: Mapping, image: UInt8[Array, "N H W 3"]) -> dict[str, Array]:
    """Images of any size, 0..255, resized inside.

    pool [N, 2048]: pool_3, for FID. spatial [N, 2023]: for sFID. probs [N, 1008]: softmax
    of the classes without the classifier's bias, for the inception score.
    """
    x = (resize.bilinear_tf1(image, SIDE, SIDE) - 128.0) / 128.0
    for block, outputs in blocks(params, x):
        if block == SPATIAL_BLOCK:
            spatial = outputs[0][..., :SPATIAL_CHANNELS]
    pool = jnp.mean(jnp.concatenate(outputs, -1), axis=(1, 2))
    logits = jnp.dot(pool, params["fc.weight"], precision=jax.lax.Precision.HIGHEST)
    return {
        "pool": pool,
        "spatial": spatial.reshape(len(spatial), -1),
        "probs": jax.nn.softmax(logits),
    }
