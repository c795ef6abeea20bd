"""Locating, cropping and classifying moving digits, on clips whose digit is known."""

import functools

import numpy as np
import pytest

from ul.data.sources import moving_digits as data
from ul.metrics import moving_digits

SHAPE = (16, 16, 16, 1)
CONTEXT, GENERATED = slice(0, 5), slice(5, 16)


@functools.cache
def clips(split, count, frames=16):
    shape = (frames, *SHAPE[1:])
    source = data.make_source(split, shape, num_examples=count)
    items = [source[i] for i in range(count)]
    centers = [data.centers(split, shape, i) for i in range(count)]
    label = np.array([item["label"] for item in items])
    return np.stack([item["image"] for item in items]), label, np.stack(centers)


@functools.cache
def classifier():
    image, label, _ = clips("train", 1437, frames=1)
    return moving_digits.MovingDigitClassifier(image, label, frames=1)


def noisy(image, std):
    noise = np.random.default_rng(0).normal(0.0, std, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("std", "mean_error", "max_error"), [(0, 0.1, 0.3), (20, 0.12, 0.5)]
)
def test_the_digit_is_located(std, mean_error, max_error):
    """Held-out digits, clean and with the noise of a generated frame; errors in pixels."""
    image, _, centers = clips("eval", 120)
    offset = moving_digits.locate(noisy(image, std)) - centers
    error = np.linalg.norm(offset, axis=-1)
    assert error.mean() < mean_error and error.max() < max_error


def test_a_distant_speck_is_ignored_and_an_empty_frame_gives_the_middle():
    image, _, centers = clips("eval", 120)
    # Clips with a frame in which the digit is far from the first corner.
    chosen = (centers > 10.0).all(-1).any(-1)
    assert chosen.sum() >= 10
    image, centers = image[chosen].copy(), centers[chosen]
    before = moving_digits.locate(image)
    distant_frames = (centers > 10.0).all(-1)
    image[distant_frames, 0, 0] = 120
    np.testing.assert_array_equal(moving_digits.locate(image), before)
    np.testing.assert_array_equal(
        moving_digits.locate(0 * image), np.full(before.shape, 7.5)
    )


def test_real_clips_are_classified_correctly():
    image, label, _ = clips("eval", 120)
    assert classifier().accuracy(image, label, GENERATED) >= 0.95
    assert classifier().accuracy(noisy(image, 10.0), label, GENERATED) >= 0.95
    assert classifier().accuracy(image, (label + 1) % 10, GENERATED) <= 0.05


def test_only_the_chosen_frames_are_classified():
    image, label, _ = (a[:60].copy() for a in clips("eval", 120))
    image[:, GENERATED] = image[::-1, GENERATED]
    predicted = classifier().predict(image, GENERATED)
    np.testing.assert_array_equal(predicted, classifier().predict(image, slice(8, 16)))
    assert np.mean(predicted == label[::-1]) >= 0.95
    assert classifier().accuracy(image, label, CONTEXT) >= 0.95


def test_position_error_is_the_mean_distance_over_the_chosen_frames():
    image, _, centers = clips("eval", 120)
    shifted = np.zeros_like(image)
    shifted[:, :, :, 2:] = image[:, :, :, :-2]
    inside = centers[:, :, 1].max(1) < 10.0
    assert inside.sum() >= 5
    shifted, image, centers = shifted[inside], image[inside], centers[inside]
    error = moving_digits.position_error(shifted, image, GENERATED)
    assert error == pytest.approx(2.0)
    shifted[:, CONTEXT] = 0
    error = moving_digits.position_error(shifted, image, GENERATED)
    assert error == pytest.approx(2.0)
    assert moving_digits.position_error(image, centers, GENERATED) < 0.1


def test_a_copy_of_the_last_context_frame_has_a_large_position_error():
    """A model of motion must beat this baseline: 2.3 pixels, and the right digit."""
    image, label, centers = clips("eval", 120)
    copied = np.concatenate(
        [image[:, CONTEXT], np.repeat(image[:, 4:5], 11, axis=1)], axis=1
    )
    assert 2.0 < moving_digits.position_error(copied, centers, GENERATED) < 2.7
    assert classifier().accuracy(copied, label, GENERATED) >= 0.95
