import functools

import numpy as np
import pytest

from ul.data.sources import moving_digits as data
from ul.metrics import moving_digits

SHAPE = (16, 16, 16, 1)
GIVEN, GENERATED = slice(0, 5), slice(5, 16)


@functools.cache
def clips(split, count, frames=16):
    shape = (frames, *SHAPE[1:])
    source = data.moving_digits(split, shape, examples=count)
    items = [source[i] for i in range(count)]
    centres = [data.centres(split, shape, i) for i in range(count)]
    label = np.array([item["label"] for item in items])
    return np.stack([item["image"] for item in items]), label, np.stack(centres)


@functools.cache
def judge():
    image, label, _ = clips("train", 1437, frames=1)
    return moving_digits.Judge(image, label, frames=1)


def noisy(image, std):
    noise = np.random.default_rng(0).normal(0.0, std, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("std", "mean", "most"), [(0, 0.1, 0.3), (20, 0.12, 0.5)])
def test_the_digit_is_located(std, mean, most):
    """Held-out digits, clean and with a generated frame's noise, in pixels."""
    image, _, centres = clips("eval", 120)
    away = np.linalg.norm(moving_digits.locate(noisy(image, std)) - centres, axis=-1)
    assert away.mean() < mean and away.max() < most


def test_a_speck_far_off_does_not_count_and_nothing_is_in_the_middle():
    image, _, centres = clips("eval", 120)
    far = (centres > 10.0).all(-1).any(-1)  # in some frame, of the first corner
    assert far.sum() >= 10
    image, centres = image[far].copy(), centres[far]
    before = moving_digits.locate(image)
    away = (centres > 10.0).all(-1)
    image[away, 0, 0] = 120
    np.testing.assert_array_equal(moving_digits.locate(image), before)
    np.testing.assert_array_equal(
        moving_digits.locate(0 * image), np.full(before.shape, 7.5)
    )


def test_real_clips_show_their_digit():
    image, label, _ = clips("eval", 120)
    assert judge().accuracy(image, label, GENERATED) >= 0.95
    assert judge().accuracy(noisy(image, 10.0), label, GENERATED) >= 0.95
    assert judge().accuracy(image, (label + 1) % 10, GENERATED) <= 0.05


def test_the_frames_asked_for_decide():
    image, label, _ = (a[:60].copy() for a in clips("eval", 120))
    image[:, GENERATED] = image[::-1, GENERATED]
    found = judge().identity(image, GENERATED)
    np.testing.assert_array_equal(found, judge().identity(image, slice(8, 16)))
    assert np.mean(found == label[::-1]) >= 0.95
    assert judge().accuracy(image, label, GIVEN) >= 0.95


def test_position_error_is_the_distance_over_the_frames_asked_for():
    image, _, centres = clips("eval", 120)
    moved = np.zeros_like(image)
    moved[:, :, :, 2:] = image[:, :, :, :-2]
    inside = centres[:, :, 1].max(1) < 10.0
    assert inside.sum() >= 5
    one, two = moved[inside], image[inside]
    assert moving_digits.position_error(one, two, GENERATED) == pytest.approx(2.0)
    one[:, GIVEN] = 0
    assert moving_digits.position_error(one, two, GENERATED) == pytest.approx(2.0)
    assert moving_digits.position_error(two, centres[inside], GENERATED) < 0.1


def test_a_copy_of_the_last_given_frame_is_far_off():
    """The baseline that a model of motion must beat: 2.3 pixels, and the right digit."""
    image, label, centres = clips("eval", 120)
    copied = np.concatenate(
        [image[:, GIVEN], np.repeat(image[:, 4:5], 11, axis=1)], axis=1
    )
    assert 2.0 < moving_digits.position_error(copied, centres, GENERATED) < 2.7
    assert judge().accuracy(copied, label, GENERATED) >= 0.95
