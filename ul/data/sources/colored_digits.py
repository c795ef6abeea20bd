"""Digits in colors with captions: a dataset that shows whether a model follows its text.

Each word has a fixed random vector in place of a text encoder's output; which words mean a
digit or a color is for the model to learn.
"""

import difflib
import functools
import zlib

import numpy as np

from ul.core.errors import ConfigError, DataError
from ul.data.sources import digits
from ul.data.sources.base import Example, Shape
from ul.data.sources.captioned import CaptionedSource, pad_text

DIGITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
# Each has a channel at 255, so the largest channel of an image is the gray digit.
COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (255, 0, 255),
    "cyan": (0, 255, 255),
}
# They differ in length and in which of the two words is first. No other word of theirs is
# the name of a digit or a color.
TEMPLATES = (
    "{color} {digit}",
    "a {color} {digit}",
    "{digit} , {color}",
    "{digit} painted {color}",
    "the digit {digit} in {color}",
    "a handwritten {digit} , and the ink is {color}",
)
TOKENS, CHANNELS = 12, 32
VOCABULARY = frozenset(
    word
    for template in TEMPLATES
    for word in (*template.split(), *DIGITS, *COLORS)
    if "{" not in word
)


@functools.cache
def word_vector(word: str) -> np.ndarray:
    """Return the unit vector of a word, float32 [CHANNELS]; the word itself is its seed."""
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    vector = rng.standard_normal(CHANNELS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embed(caption: str) -> Example:
    """Return `text`, float16 [TOKENS, CHANNELS] with one row per word, and `text_length`.

    Raises:
      ConfigError: the caption has a word outside the vocabulary, or too many words.
    """
    words = caption.split()
    for word in words:
        if word not in VOCABULARY:
            matches = difflib.get_close_matches(word, VOCABULARY, 1)
            hint = (
                f"Did you mean {matches[0]!r}?"
                if matches
                else f"The vocabulary is: {', '.join(sorted(VOCABULARY))}."
            )
            raise ConfigError(
                "Captions of colored_digits must use the words of its vocabulary; "
                f"{caption!r} contains {word!r}. {hint}"
            )
    if len(words) > TOKENS:
        raise ConfigError(
            f"Captions of colored_digits may have at most {TOKENS} words; {caption!r} has "
            f"{len(words)}."
        )
    vectors = [word_vector(word) for word in words]
    return pad_text(np.reshape(vectors, (len(words), CHANNELS)), (TOKENS, CHANNELS))


class ColoredDigits(CaptionedSource):
    """Every digit of a split in every color, each time with a caption of a random template.

    Example i shows digit i modulo N, where N is the number of digits in the split. The
    colors of the first N examples follow one another.
    """

    num_classes, text_shape = len(DIGITS), (TOKENS, CHANNELS)

    def __init__(self, split: str):
        self._digits = digits.make_source(split, (8, 8, 1))
        self._split_seed = 0 if split == "train" else 1

    def __len__(self) -> int:
        return len(self._digits) * len(COLORS)

    def color_index(self, i: int) -> int:
        """Return the position in COLORS of the color of example i."""
        repetition, digit_index = divmod(i, len(self._digits))
        return (repetition + digit_index) % len(COLORS)

    def caption(self, i: int) -> str:
        """Return the caption of example i."""
        rng = np.random.default_rng([self._split_seed, i])
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        digit = DIGITS[self._digits[i % len(self._digits)]["label"]]
        color = tuple(COLORS)[self.color_index(i)]
        return template.format(digit=digit, color=color)

    def text_condition(self, i: int) -> Example:
        """Return the embedded caption of example i."""
        return embed(self.caption(i))

    def labeled_image(self, i: int) -> Example:
        """Return the image and the label of example i."""
        gray = self._digits[i % len(self._digits)]
        color = np.array(tuple(COLORS.values())[self.color_index(i)], np.uint16)
        image = (gray["image"] * color // 255).astype(np.uint8)
        return {"image": image, "label": gray["label"]}


def make_source(split: str, shape: Shape) -> ColoredDigits:
    """Return scikit-learn's digits, 8x8, in six colors on black, with captions."""
    if shape != (8, 8, 3):
        raise DataError(
            "data.image_shape must be (8, 8, 3) for data.source.kind 'colored_digits'; got "
            f"{shape}."
        )
    return ColoredDigits(split)
