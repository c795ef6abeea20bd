"""Clips of a moving digit [N, T, H, W, 1] uint8: where the digit is, and which digit it is.

Both are measured without a model: the digit is located in every frame, cropped, and
classified by an SVM that was trained on real clips.
"""

import numpy as np

from ul.metrics.classifier import SvmClassifier

DIGIT_SIDE = 8
# Levels up to this one are background: it exceeds the noise of a generated frame, but not
# the stroke of a digit.
BACKGROUND_LEVEL = 32.0


def locate(clips: np.ndarray) -> np.ndarray:
    """Return the center of the digit [N, T, 2], row and column in pixels.

    It is the center of intensity above the background in the brightest 9x9 window (what an
    8x8 digit between pixels covers). For an empty frame it is the middle of the canvas.
    """
    mass = np.maximum(clips[..., 0].astype(np.float64) - BACKGROUND_LEVEL, 0.0)
    *lead, height, width = mass.shape
    mass = mass.reshape(-1, height, width)
    side = min(DIGIT_SIDE + 1, height, width)
    windows = np.lib.stride_tricks.sliding_window_view(mass, (side, side), (1, 2))
    sums = windows.sum((-2, -1))
    brightest = sums.reshape(len(mass), -1).argmax(1)
    top, left = np.unravel_index(brightest, sums.shape[1:])
    window = windows[np.arange(len(mass)), top, left]
    total = window.sum((1, 2))
    index, divisor = np.arange(side), np.where(total > 0.0, total, 1.0)
    rows = top + window.sum(2) @ index / divisor
    columns = left + window.sum(1) @ index / divisor
    middle = (np.array([height, width]) - 1) / 2.0
    centers = np.stack([rows, columns], -1)
    return np.where(total[:, None] > 0.0, centers, middle).reshape(*lead, 2)


def crop_digits(clips: np.ndarray) -> np.ndarray:
    """Return the digit of each frame, centered, as uint8 [N, T, 8, 8, 1].

    Interpolation between pixels is bilinear; beyond the canvas all pixels are zero.
    """
    corner = locate(clips) - (DIGIT_SIDE - 1) / 2.0
    down, right = (
        _bilinear_weights(side, corner[..., axis])
        for axis, side in enumerate(clips.shape[2:4])
    )
    crops = np.einsum("nthi,nthw,ntwj->ntij", down, clips[..., 0], right, optimize=True)
    return np.clip(np.round(crops), 0, 255).astype(np.uint8)[..., None]


def _bilinear_weights(side: int, corner: np.ndarray) -> np.ndarray:
    """Return the weight [N, T, side, 8] of each canvas pixel in each pixel of a crop."""
    offset = np.arange(side)[:, None] - (
        corner[..., None, None] + np.arange(DIGIT_SIDE)
    )
    return np.maximum(0.0, 1.0 - np.abs(offset))


def position_error(clips: np.ndarray, reference: np.ndarray, frames: slice) -> float:
    """Return the mean distance in pixels from the digit to its reference over `frames`.

    `reference` is either clips, in which the digit is located, or true centers [N, T, 2].
    """
    centers = reference if reference.ndim == 3 else locate(reference)
    offset = locate(clips[:, frames]) - centers[:, frames]
    return float(np.mean(np.linalg.norm(offset, axis=-1)))


class MovingDigitClassifier:
    """A classifier of the digit in a clip, trained on some frames of real clips."""

    name = (
        f"{SvmClassifier.name}, of the located digit, "
        "decision scores averaged over frames"
    )

    def __init__(self, clips: np.ndarray, label: np.ndarray, *, frames: int):
        """Train on `frames` evenly spaced frames of each clip."""
        chosen = np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)
        digits = crop_digits(clips[:, chosen])
        self._classifier = SvmClassifier(
            digits.reshape(-1, *digits.shape[2:]), np.repeat(label, frames)
        )

    def predict(self, clips: np.ndarray, frames: slice) -> np.ndarray:
        """Return the digit [N] of each clip, from the scores of `frames` together."""
        digits = crop_digits(clips[:, frames])
        scores = self._classifier.decision_scores(digits.reshape(-1, *digits.shape[2:]))
        return scores.reshape(*digits.shape[:2], -1).mean(1).argmax(-1)

    def accuracy(self, clips: np.ndarray, label: np.ndarray, frames: slice) -> float:
        """Return the fraction of clips that show the digit of their label."""
        return float(np.mean(self.predict(clips, frames) == label))
