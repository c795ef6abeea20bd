"""Digits in colours with captions: a set that shows whether a model obeys its text.

The words' vectors are random and fixed, a stand-in for a text encoder: a word is its own
seed, and which words mean a digit or a colour is for the model to learn. Like an encoder's,
they come padded with zeros, and with their number.
"""

import difflib
import functools
import zlib

import numpy as np

from ul.core.errors import ConfigError, DataError
from ul.data.sources import basic
from ul.data.sources.basic import Example, Shape

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
# The brightest channel is 255: the largest of three is the digit in grey.
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (255, 0, 255),
    "cyan": (0, 255, 255),
}
# Of different lengths, either word first; none has another digit or colour in it.
TEMPLATES = (
    "{colour} {digit}",
    "a {colour} {digit}",
    "{digit} , {colour}",
    "{digit} painted {colour}",
    "the digit {digit} in {colour}",
    "a handwritten {digit} , and the ink is {colour}",
)
TOKENS, CHANNELS = 12, 32
VOCABULARY = frozenset(
    word
    for template in TEMPLATES
    for word in (*template.split(), *DIGITS, *COLOURS)
    if "{" not in word
)
_KNOWN = ", ".join(sorted(VOCABULARY))


@functools.cache
def vector(word: str) -> np.ndarray:
    """The word's unit vector, float32 [CHANNELS]; the same everywhere."""
    drawn = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(CHANNELS)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def embedded(caption: str) -> Example:
    """`text` float16 [TOKENS, CHANNELS], a word a row and zeros after; `text_length`.

    Raises:
      ConfigError: a word that no caption has, or too many words.
    """
    words = caption.split()
    for word in words:
        if word not in VOCABULARY:
            near = difflib.get_close_matches(word, VOCABULARY, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {_KNOWN}"
            raise ConfigError(f"text {caption!r} has the unknown word {word!r}; {hint}")
    if len(words) > TOKENS:
        raise ConfigError(
            f"text {caption!r} has {len(words)} words; at most {TOKENS} can be told"
        )
    text = np.zeros((TOKENS, CHANNELS), np.float16)
    for row, word in zip(text, words, strict=False):
        row[:] = vector(word)
    return {"text": text, "text_length": np.int32(len(words))}


class ColoredDigits:
    """Every digit of a split in every colour, each time with one of the templates.

    Item i is digit i mod N of the N in the split; the first N have all colours in turn.
    """

    num_classes, text_shape = len(DIGITS), (TOKENS, CHANNELS)

    def __init__(self, split: str):
        self._digits = basic.digits(split, (8, 8, 1))
        self._stream = 0 if split == "train" else 1

    def __len__(self) -> int:
        return len(self._digits) * len(COLOURS)

    def colour(self, i: int) -> int:
        """Which of COLOURS item i has."""
        turn, place = divmod(i, len(self._digits))
        return (turn + place) % len(COLOURS)

    def caption(self, i: int) -> str:
        """What item i is called."""
        drawn = np.random.default_rng([self._stream, i]).integers(len(TEMPLATES))
        digit = self._digits[i % len(self._digits)]["label"]
        colour = tuple(COLOURS)[self.colour(i)]
        return TEMPLATES[drawn].format(digit=DIGITS[digit], colour=colour)

    def told(self, i: int) -> Example:
        """Item i's caption, embedded."""
        return embedded(self.caption(i))

    def picture(self, i: int) -> Example:
        """Item i's image and label."""
        grey = self._digits[i % len(self._digits)]
        colour = np.array(tuple(COLOURS.values())[self.colour(i)], np.uint16)
        image = (grey["image"] * colour // 255).astype(np.uint8)
        return {"image": image, "label": grey["label"]}

    def __getitem__(self, i) -> Example:
        return self.picture(int(i)) | self.told(int(i))


def colored_digits(split: str, shape: Shape) -> ColoredDigits:
    """scikit-learn's digits, 8x8, in six colours on black, with captions."""
    if shape != (8, 8, 3):
        raise DataError(
            f"captioned digits are 8x8, RGB, but data.image_shape is {list(shape)}; set it "
            "to [8, 8, 3]"
        )
    return ColoredDigits(split)
