"""Digits in colors: the caption of an image tells what it shows."""

import collections

import numpy as np
import pytest

from ul.core.errors import ConfigError, DataError
from ul.data.sources import colored_digits, digits
from ul.data.sources.colored_digits import COLORS, DIGITS, TEMPLATES

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def held_out():
    return colored_digits.make_source("eval", SHAPE)


def test_every_digit_comes_once_in_every_color(held_out):
    gray = digits.make_source("eval", (8, 8, 1))
    assert len(held_out) == 6 * len(gray) == 2160
    pairs = collections.Counter((i % 360, held_out.color_index(i)) for i in range(2160))
    assert len(pairs) == 2160
    for i in (0, 1, 400, 2159):
        example, digit = held_out[i], gray[i % 360]
        image = example["image"]
        assert image.dtype == np.uint8 and image.shape == SHAPE
        np.testing.assert_array_equal(image.max(-1), digit["image"][..., 0])
        lit = image.reshape(-1, 3).max(0) == image.max()
        color = tuple(COLORS.values())[held_out.color_index(i)]
        np.testing.assert_array_equal(lit, np.array(color) > 0)
        assert example["label"] == digit["label"]


def test_the_caption_names_the_digit_and_the_color(held_out):
    templates = set()
    for i in range(0, 2160, 7):
        words = held_out.caption(i).split()
        digit = DIGITS[held_out[i]["label"]]
        color = tuple(COLORS)[held_out.color_index(i)]
        assert [w for w in words if w in DIGITS] == [digit]
        assert [w for w in words if w in COLORS] == [color]
        template = " ".join(words).replace(digit, "{digit}").replace(color, "{color}")
        templates.add(template)
    assert templates == set(TEMPLATES)


def test_words_are_fixed_unit_vectors_padded_with_zeros(held_out):
    example = colored_digits.embed("the digit three in red")
    assert example["text"].shape == held_out.text_shape == (12, 32)
    assert example["text"].dtype == np.float16
    assert example["text_length"] == 5 and example["text_length"].dtype == np.int32
    norms = np.linalg.norm(example["text"].astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, [1.0] * 5 + [0.0] * 7, atol=1e-3)
    np.testing.assert_array_equal(
        example["text"][2], colored_digits.embed("three , red")["text"][0]
    )
    vectors = np.stack(
        [colored_digits.word_vector(w) for w in sorted(colored_digits.VOCABULARY)]
    )
    overlap = np.abs(vectors @ vectors.T - np.eye(len(vectors)))
    assert overlap.max() < 0.7
    # The vectors are the same on every machine and in every process.
    np.testing.assert_allclose(colored_digits.word_vector("red")[:2], GOLDEN, rtol=1e-5)


GOLDEN = (0.02390662, 0.25159833)


def test_training_and_held_out_captions_use_templates_independently(held_out):
    train = colored_digits.make_source("train", SHAPE)
    again = colored_digits.make_source("train", SHAPE)
    captions = [train.caption(i).split() for i in range(100)]
    assert captions == [again.caption(i).split() for i in range(100)]
    lengths = [len(words) for words in captions]
    assert lengths != [len(held_out.caption(i).split()) for i in range(100)]


def test_captions_that_cannot_be_embedded_are_refused():
    with pytest.raises(ConfigError, match="'thre'. Did you mean 'three'"):
        colored_digits.embed("a red thre")
    with pytest.raises(ConfigError, match="at most 12 words; .* has 13"):
        colored_digits.embed("red " * 13)
    with pytest.raises(DataError, match=r"must be \(8, 8, 3\) .* got \(8, 8, 1\)"):
        colored_digits.make_source("train", (8, 8, 1))
