"""Clips of a real digit that moves, so that later frames can be predicted from earlier ones.

The digit (scikit-learn's, 8x8, gray) moves at a constant velocity and bounces off the
borders elastically. Clip i is a pure function of its split and i.
"""

import functools

import numpy as np

from ul.core.errors import ConfigError
from ul.data.sources import digits
from ul.data.sources.base import FunctionSource, Shape

SIDE = 8
# Pixels per frame. On a 16x16 canvas, where 8 pixels are free, a digit travels between half
# and one and a half of these 8 pixels in 16 frames: most digits bounce, and no two frames
# are alike.
SPEEDS = 0.25, 0.75


def make_source(
    split: str, shape: Shape, *, num_examples: int = 40_000
) -> FunctionSource:
    """Return clips of shape [T, H, W, 1]; clip i shows digit i modulo their number.

    The digits of each split are those of the source `digits`.
    """
    fits = len(shape) == 4 and shape[-1] == 1 and min(shape[1:3]) > SIDE
    if not fits or num_examples < 1:
        raise ConfigError(
            "For data.source.kind 'moving_digits' data.image_shape must be (frames, height, "
            f"width, 1) with a height and width above {SIDE}, and data.source.num_examples "
            f"at least 1; got {shape} and {num_examples}."
        )
    images, labels = _digits(split)

    def get_example(i):
        index = i % len(images)
        clip = _render(images[index], shape, corners(split, shape, i))
        levels = np.clip(np.round(clip), 0, 255)
        return {
            "image": levels.astype(np.uint8)[..., None],
            "label": int(labels[index]),
        }

    return FunctionSource(num_examples, get_example, num_classes=10)


def centers(split: str, shape: Shape, index: int) -> np.ndarray:
    """Return the digit's exact center of intensity in each frame: row and column, [T, 2].

    The unit is pixels; the center of a pixel has whole coordinates.
    """
    images, _ = _digits(split)
    digit = images[index % len(images)]
    weights = np.arange(SIDE) / digit.sum()
    within_digit = np.array([weights @ digit.sum(1), weights @ digit.sum(0)])
    return corners(split, shape, index) + within_digit


def corners(split: str, shape: Shape, index: int) -> np.ndarray:
    """Return the position of the digit's top left pixel in each frame, [T, 2]."""
    rng = np.random.default_rng([0 if split == "train" else 1, index])
    free = np.array(shape[1:3]) - SIDE
    start, angle = rng.uniform(0.0, free), rng.uniform(0.0, 2.0 * np.pi)
    velocity = rng.uniform(*SPEEDS) * np.array([np.sin(angle), np.cos(angle)])
    unbounded = start + velocity * np.arange(shape[0])[:, None]
    # Between two walls the motion has the period 2 free: forth over 0 .. free, then back.
    phase = np.mod(unbounded, 2 * free)
    return np.minimum(phase, 2 * free - phase)


def _render(digit: np.ndarray, shape: Shape, corner: np.ndarray) -> np.ndarray:
    """Return [T, H, W]: the digit at `corner`, [T, 2], interpolated bilinearly.

    Bilinear interpolation moves the center of intensity exactly as the corner.
    """
    rows, columns = (
        _interpolation(side, corner[:, axis]) for axis, side in enumerate(shape[1:3])
    )
    return rows @ digit @ columns.swapaxes(1, 2)


def _interpolation(side: int, corner: np.ndarray) -> np.ndarray:
    """Return [T, side, SIDE]: the weight of each digit pixel in each pixel of an axis."""
    distance = np.arange(side)[:, None] - (corner[:, None, None] + np.arange(SIDE))
    return np.maximum(0.0, 1.0 - np.abs(distance))


@functools.cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the digits of a split, [N, 8, 8], and their labels, [N]."""
    source = digits.make_source(split, (SIDE, SIDE, 1))
    examples = [source[i] for i in range(len(source))]
    images = np.stack([example["image"][..., 0] for example in examples])
    return images.astype(np.float64), np.array([e["label"] for e in examples])
