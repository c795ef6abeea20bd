"""Digits in colours: what is said of an image is what it shows."""

import collections

import numpy as np
import pytest

from ul.core.errors import ConfigError, DataError
from ul.data.sources import basic, colored_digits
from ul.data.sources.colored_digits import COLOURS, DIGITS, TEMPLATES

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def held_out():
    return colored_digits.colored_digits("eval", SHAPE)


def test_every_digit_comes_once_in_every_colour(held_out):
    grey = basic.digits("eval", (8, 8, 1))
    assert len(held_out) == 6 * len(grey) == 2160
    seen = collections.Counter((i % 360, held_out.colour(i)) for i in range(2160))
    assert len(seen) == 2160
    for i in (0, 1, 400, 2159):
        found = held_out[i]
        image, drawn = found["image"], grey[i % 360]
        assert image.dtype == np.uint8 and image.shape == SHAPE
        np.testing.assert_array_equal(image.max(-1), drawn["image"][..., 0])
        lit = image.reshape(-1, 3).max(0) == image.max()
        colour = tuple(COLOURS.values())[held_out.colour(i)]
        np.testing.assert_array_equal(lit, np.array(colour) > 0)
        assert found["label"] == drawn["label"]


def test_the_caption_names_the_digit_and_the_colour(held_out):
    used = set()
    for i in range(0, 2160, 7):
        words = held_out.caption(i).split()
        digit, colour = DIGITS[held_out[i]["label"]], tuple(COLOURS)[held_out.colour(i)]
        assert [w for w in words if w in DIGITS] == [digit]
        assert [w for w in words if w in COLOURS] == [colour]
        used.add(" ".join(words).replace(digit, "{digit}").replace(colour, "{colour}"))
    assert used == set(TEMPLATES)


def test_words_are_fixed_unit_vectors_padded_with_zeros(held_out):
    found = colored_digits.embedded("the digit three in red")
    assert found["text"].shape == held_out.text_shape == (12, 32)
    assert found["text"].dtype == np.float16
    assert found["text_length"] == 5 and found["text_length"].dtype == np.int32
    norms = np.linalg.norm(found["text"].astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, [1.0] * 5 + [0.0] * 7, atol=1e-3)
    np.testing.assert_array_equal(
        found["text"][2], colored_digits.embedded("three , red")["text"][0]
    )
    vectors = np.stack(
        [colored_digits.vector(word) for word in sorted(colored_digits.VOCABULARY)]
    )
    overlap = np.abs(vectors @ vectors.T - np.eye(len(vectors)))
    assert overlap.max() < 0.7
    # The same on every machine and in every process.
    np.testing.assert_allclose(colored_digits.vector("red")[:2], GOLDEN, rtol=1e-5)


GOLDEN = (0.02390662, 0.25159833)


def test_training_and_held_out_captions_are_drawn_apart(held_out):
    train = colored_digits.colored_digits("train", SHAPE)
    again = colored_digits.colored_digits("train", SHAPE)
    said = [train.caption(i).split() for i in range(100)]
    assert said == [again.caption(i).split() for i in range(100)]
    lengths = [len(s) for s in said]
    assert lengths != [len(held_out.caption(i).split()) for i in range(100)]


def test_what_cannot_be_said_is_refused():
    with pytest.raises(ConfigError, match="'thre'; did you mean 'three'"):
        colored_digits.embedded("a red thre")
    with pytest.raises(ConfigError, match="13 words; at most 12"):
        colored_digits.embedded("red " * 13)
    with pytest.raises(DataError, match=r"\[8, 8, 1\]; set it to \[8, 8, 3\]"):
        colored_digits.colored_digits("train", (8, 8, 1))
