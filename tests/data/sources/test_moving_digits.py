import numpy as np
import pytest

from ul.core.errors import ConfigError
from ul.data.sources import basic, moving_digits

SHAPE = (16, 16, 16, 1)


def clip(i, split="train", shape=SHAPE):
    return moving_digits.moving_digits(split, shape, examples=2000)[i]


def test_a_clip_depends_on_split_and_index_alone():
    one, again, other = clip(3), clip(3), clip(3 + 1437)
    assert one["image"].shape == SHAPE and one["image"].dtype == np.uint8
    np.testing.assert_array_equal(one["image"], again["image"])
    assert one["label"] == other["label"]  # the same digit, moving otherwise
    assert not np.array_equal(one["image"], other["image"])
    longer = clip(3, shape=(20, *SHAPE[1:]))["image"]
    np.testing.assert_array_equal(longer[:16], one["image"])


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("eval", 360)])
def test_the_digit_is_one_of_its_split(split, count):
    """On whole pixels a frame is the digit itself."""
    digits = basic.digits(split, (8, 8, 1))
    assert len(digits) == count
    for i in (0, 5, count + 2):
        drawn = moving_digits._drawn(
            digits[i % count]["image"][..., 0], SHAPE, np.full((16, 2), [3.0, 8.0])
        )
        want = np.zeros((16, 16))
        want[3:11, 8:16] = digits[i % count]["image"][..., 0]
        np.testing.assert_array_equal(drawn[4], want)
        found = clip(i, split)
        assert found["label"] == digits[i % count]["label"]
        total = found["image"].sum((1, 2, 3), dtype=float)
        np.testing.assert_allclose(
            total, want.sum(), atol=40.0
        )  # rounding of 81 pixels


def test_it_moves_at_one_speed_and_bounces_off_the_borders():
    """Elastic: each axis is straight, mirrored at the walls; the digit never leaves."""
    bounced = 0
    for i in range(40):
        corner = moving_digits.corners("train", SHAPE, i)
        assert corner.min() >= 0.0 and corner.max() <= 8.0
        step = np.diff(corner, axis=0)
        assert np.linalg.norm(step, axis=1).max() <= 0.75
        inside = (corner > 1.0).all(1) & (corner < 7.0).all(1)
        straight = np.abs(step[inside[1:] & inside[:-1]])
        if len(straight):
            np.testing.assert_allclose(
                straight, np.tile(straight[0], (len(straight), 1))
            )
            assert 0.25 <= np.linalg.norm(straight[0]) <= 0.75
        bounced += np.ptp(np.sign(step), axis=0).max() > 0
    assert bounced > 30


def test_the_true_centre_is_that_of_the_pixels():
    at = np.arange(16)
    for i in range(5):
        frames = clip(i)["image"][..., 0].astype(float)
        total = frames.sum((1, 2))
        found = np.stack(
            [frames.sum(2) @ at / total, frames.sum(1) @ at / total], axis=-1
        )
        # Levels are rounded: a few of 81 pixels at a distance of 4, of a mass above 2,000.
        np.testing.assert_allclose(
            found, moving_digits.centres("train", SHAPE, i), atol=0.05
        )


@pytest.mark.parametrize(
    ("shape", "examples"),
    [((16, 16, 1), 9), ((4, 16, 16, 3), 9), ((4, 8, 16, 1), 9), (SHAPE, 0)],
)
def test_what_no_digit_can_move_in_is_refused(shape, examples):
    with pytest.raises(ConfigError, match="moving_digits: data.image_shape"):
        moving_digits.moving_digits("train", shape, examples=examples)
