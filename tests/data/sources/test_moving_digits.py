"""Clips of a digit that moves uniformly and bounces off the borders."""

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.data.sources import digits, moving_digits

SHAPE = (16, 16, 16, 1)


def clip(i, split="train", shape=SHAPE):
    return moving_digits.make_source(split, shape, num_examples=2000)[i]


def test_a_clip_depends_on_split_and_index_alone():
    one, again, other = clip(3), clip(3), clip(3 + 1437)
    assert one["image"].shape == SHAPE and one["image"].dtype == np.uint8
    np.testing.assert_array_equal(one["image"], again["image"])
    assert one["label"] == other["label"]  # The same digit with another motion.
    assert not np.array_equal(one["image"], other["image"])
    longer = clip(3, shape=(20, *SHAPE[1:]))["image"]
    np.testing.assert_array_equal(longer[:16], one["image"])


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("eval", 360)])
def test_the_digit_is_one_of_its_split(split, count):
    """At whole pixels a frame shows the digit itself."""
    originals = digits.make_source(split, (8, 8, 1))
    assert len(originals) == count
    for i in (0, 5, count + 2):
        digit = originals[i % count]
        frames = moving_digits._render(
            digit["image"][..., 0], SHAPE, np.full((16, 2), [3.0, 8.0])
        )
        expected = np.zeros((16, 16))
        expected[3:11, 8:16] = digit["image"][..., 0]
        np.testing.assert_array_equal(frames[4], expected)
        example = clip(i, split)
        assert example["label"] == digit["label"]
        total = example["image"].sum((1, 2, 3), dtype=float)
        # The levels of 81 pixels are rounded.
        np.testing.assert_allclose(total, expected.sum(), atol=40.0)


def test_it_moves_at_one_speed_and_bounces_off_the_borders():
    """Each axis moves uniformly and is mirrored at the walls; the digit never leaves."""
    num_bounced = 0
    for i in range(40):
        corner = moving_digits.corners("train", SHAPE, i)
        assert corner.min() >= 0.0 and corner.max() <= 8.0
        step = np.diff(corner, axis=0)
        assert np.linalg.norm(step, axis=1).max() <= 0.75
        inside = (corner > 1.0).all(1) & (corner < 7.0).all(1)
        away_from_walls = np.abs(step[inside[1:] & inside[:-1]])
        if len(away_from_walls):
            first = away_from_walls[0]
            np.testing.assert_allclose(
                away_from_walls, np.tile(first, (len(away_from_walls), 1))
            )
            assert 0.25 <= np.linalg.norm(first) <= 0.75
        num_bounced += np.ptp(np.sign(step), axis=0).max() > 0
    assert num_bounced > 30


def test_the_exact_centers_are_those_of_the_pixels():
    position = np.arange(16)
    for i in range(5):
        frames = clip(i)["image"][..., 0].astype(float)
        total = frames.sum((1, 2))
        rows, columns = frames.sum(2) @ position, frames.sum(1) @ position
        measured = np.stack([rows / total, columns / total], axis=-1)
        # The levels are rounded: that matters for a few of 81 pixels, at a distance of 4
        # pixels, in a sum above 2,000.
        np.testing.assert_allclose(
            measured, moving_digits.centers("train", SHAPE, i), atol=0.05
        )


@pytest.mark.parametrize(
    ("shape", "num_examples"),
    [((16, 16, 1), 9), ((4, 16, 16, 3), 9), ((4, 8, 16, 1), 9), (SHAPE, 0)],
)
def test_shapes_without_room_to_move_are_refused(shape, num_examples):
    with pytest.raises(ConfigError, match="'moving_digits' data.image_shape must be"):
        moving_digits.make_source("train", shape, num_examples=num_examples)


BREAKS = (
    Break(
        "held-out clips of training digits",
        "ul/data/sources/moving_digits.py",
        "digits.make_source(split, (SIDE, SIDE, 1))",
        'digits.make_source("train", (SIDE, SIDE, 1))',
        "test_the_digit_is_one_of_its_split",
    ),
)
