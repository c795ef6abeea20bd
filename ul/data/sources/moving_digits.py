"""Clips of one real digit that moves: what comes next can be told from what came.

The digit (scikit-learn's, 8x8 grey) moves at one velocity and bounces off the borders as a
ball does. Clip i is a pure function of its split and i.
"""

import functools

import numpy as np

from ul.core.errors import ConfigError
from ul.data.sources import basic
from ul.data.sources.basic import Items, Shape

SIDE = 8
# Pixels a frame. In 16 frames a digit goes half to one and a half of a 16x16 canvas's free 8
# pixels: most bounce, and no two frames are alike.
SPEEDS = 0.25, 0.75


def moving_digits(split: str, shape: Shape, *, examples: int) -> Items:
    """`examples` clips of shape [T, H, W, 1], clip i of digit i modulo their number.

    The training split has the digits that `sources.digits` trains on, the held-out its
    held-out ones.
    """
    if len(shape) != 4 or shape[-1] != 1 or min(shape[1:3]) <= SIDE or examples < 1:
        raise ConfigError(
            f"data.source moving_digits: data.image_shape {list(shape)} must be "
            f"[frames, height, width, 1] with sides above {SIDE}, and examples {examples} "
            "at least 1"
        )
    digits, labels = _digits(split)

    def get(i):
        which = i % len(digits)
        clip = np.clip(
            np.round(_drawn(digits[which], shape, corners(split, shape, i))), 0, 255
        )
        return {"image": clip.astype(np.uint8)[..., None], "label": int(labels[which])}

    return Items(examples, get, num_classes=10)


def centres(split: str, shape: Shape, index: int) -> np.ndarray:
    """[T, 2]: where the digit's centre of intensity truly is, row and column in pixels.

    A pixel's own centre is at its whole number.
    """
    digits, _ = _digits(split)
    digit = digits[index % len(digits)]
    at = np.arange(SIDE) / digit.sum()
    own = np.array([at @ digit.sum(1), at @ digit.sum(0)])
    return corners(split, shape, index) + own


def corners(split: str, shape: Shape, index: int) -> np.ndarray:
    """[T, 2]: where the digit's first pixel is."""
    rng = np.random.default_rng([0 if split == "train" else 1, index])
    free = np.array(shape[1:3]) - SIDE
    start, angle = rng.uniform(0.0, free), rng.uniform(0.0, 2.0 * np.pi)
    velocity = rng.uniform(*SPEEDS) * np.array([np.sin(angle), np.cos(angle)])
    straight = start + velocity * np.arange(shape[0])[:, None]
    # Between two walls: there is 0 .. free, back is free .. 2 free.
    phase = np.mod(straight, 2 * free)
    return np.minimum(phase, 2 * free - phase)


def _drawn(digit: np.ndarray, shape: Shape, corner: np.ndarray) -> np.ndarray:
    """[T, H, W]: the digit, bilinear between pixels, so that its centre moves as it does."""
    down, right = (_hats(side, corner[:, k]) for k, side in enumerate(shape[1:3]))
    return down @ digit @ right.swapaxes(1, 2)


def _hats(side: int, corner: np.ndarray) -> np.ndarray:
    """[T, side, SIDE]: what each pixel of an axis takes of each of the digit's."""
    away = np.arange(side)[:, None] - (corner[:, None, None] + np.arange(SIDE))
    return np.maximum(0.0, 1.0 - np.abs(away))


@functools.cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """[N, 8, 8] and [N]."""
    found = basic.digits(split, (SIDE, SIDE, 1))
    items = [found[i] for i in range(len(found))]
    image = np.stack([item["image"][..., 0] for item in items]).astype(np.float64)
    return image, np.array([item["label"] for item in items])
