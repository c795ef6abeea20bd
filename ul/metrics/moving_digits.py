"""Clips of a moving digit [N, T, H, W, 1] uint8: where it is, and which it is.

Judged by real training clips alone: the digit is located in every frame, cut out, and shown
to a classifier.
"""

import numpy as np

from ul.metrics.classifier import Classifier

SIDE = 8
# Levels that count as background: above a generated frame's noise, below a stroke.
BACKGROUND = 32.0


def locate(clips: np.ndarray) -> np.ndarray:
    """[N, T, 2]: centre of intensity of the digit, row and column in pixels.

    Of the 9x9 window (what an 8x8 digit between pixels covers) that holds most, above the
    background; a frame with nothing has the canvas's middle.
    """
    mass = np.maximum(clips[..., 0].astype(np.float64) - BACKGROUND, 0.0)
    *lead, height, width = mass.shape
    mass = mass.reshape(-1, height, width)
    side = min(SIDE + 1, height, width)
    windows = np.lib.stride_tricks.sliding_window_view(mass, (side, side), (1, 2))
    sums = windows.sum((-2, -1))
    best = sums.reshape(len(mass), -1).argmax(1)
    top, left = np.unravel_index(best, sums.shape[1:])
    window = windows[np.arange(len(mass)), top, left]
    total = window.sum((1, 2))
    at, one = np.arange(side), np.where(total > 0.0, total, 1.0)
    rows = top + window.sum(2) @ at / one
    columns = left + window.sum(1) @ at / one
    middle = (np.array([height, width]) - 1) / 2.0
    found = np.stack([rows, columns], -1)
    return np.where(total[:, None] > 0.0, found, middle).reshape(*lead, 2)


def cut(clips: np.ndarray) -> np.ndarray:
    """[N, T, 8, 8, 1] uint8: the digit of each frame, its centre in the middle.

    Bilinear between pixels, zero beyond the canvas.
    """
    corner = locate(clips) - (SIDE - 1) / 2.0
    axes = zip((0, 1), clips.shape[2:4], strict=True)
    down, right = (_hats(side, corner[..., k]) for k, side in axes)
    found = np.einsum("nthi,nthw,ntwj->ntij", down, clips[..., 0], right, optimize=True)
    return np.clip(np.round(found), 0, 255).astype(np.uint8)[..., None]


def _hats(side: int, corner: np.ndarray) -> np.ndarray:
    """[N, T, side, 8]: what each pixel of a cut takes of an axis of the canvas."""
    away = np.arange(side)[:, None] - (corner[..., None, None] + np.arange(SIDE))
    return np.maximum(0.0, 1.0 - np.abs(away))


def position_error(clips: np.ndarray, reference: np.ndarray, frames: slice) -> float:
    """Mean distance in pixels of the digit to where it should be, over `frames`.

    `reference`: clips, in which it is located, or true centres [N, T, 2].
    """
    wanted = reference if reference.ndim == 3 else locate(reference)
    away = locate(clips[:, frames]) - wanted[:, frames]
    return float(np.mean(np.linalg.norm(away, axis=-1)))


class Judge:
    """Which digit a clip shows: a classifier trained on some frames of real clips."""

    name = (
        f"{Classifier.name}, of the located digit, decision scores averaged over frames"
    )

    def __init__(self, clips: np.ndarray, label: np.ndarray, *, frames: int):
        """`frames` of each training clip, evenly through it."""
        chosen = np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)
        digits = cut(clips[:, chosen])
        self._classifier = Classifier(
            digits.reshape(-1, *digits.shape[2:]), np.repeat(label, frames)
        )

    def identity(self, clips: np.ndarray, frames: slice) -> np.ndarray:
        """[N]: the digit of each clip, by what `frames` show together."""
        digits = cut(clips[:, frames])
        scores = self._classifier.scores(digits.reshape(-1, *digits.shape[2:]))
        return scores.reshape(*digits.shape[:2], -1).mean(1).argmax(-1)

    def accuracy(self, clips: np.ndarray, label: np.ndarray, frames: slice) -> float:
        """Share of clips that show the digit of their label."""
        return float(np.mean(self.identity(clips, frames) == label))
