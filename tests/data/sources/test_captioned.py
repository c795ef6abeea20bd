"""Functions that the sources with captions share."""

import numpy as np

from tests.lib.breaks import Break
from ul.data.sources import captioned, colored_digits


def test_text_is_padded_with_zeros():
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
    example = captioned.pad_text(vectors, (4, 3))
    assert example["text"].dtype == np.float16 and example["text_length"] == 2
    np.testing.assert_array_equal(example["text"][:2], vectors)
    assert example["text"].shape == (4, 3) and not example["text"][2:].any()
    empty = captioned.pad_text(vectors[:0], (4, 3))
    assert empty["text_length"] == 0 and not empty["text"].any()


def test_without_captions_only_the_text_is_missing():
    source = colored_digits.make_source("eval", (8, 8, 3))
    plain = captioned.without_captions(source)
    assert len(plain) == len(source) and plain.num_classes == source.num_classes
    assert plain[7].keys() == {"image", "label"}
    np.testing.assert_array_equal(plain[7]["image"], source[7]["image"])
    assert plain[7]["label"] == source[7]["label"]


def test_latents_of_every_version_of_an_image_have_its_caption():
    source = colored_digits.make_source("eval", (8, 8, 3))
    latents = [{"z_clean": i, "label": 0} for i in range(2 * len(source))]
    joined = captioned.CaptionedLatents(latents, source)
    example = joined[len(source) + 3]
    assert len(joined) == len(latents) and example["z_clean"] == len(source) + 3
    np.testing.assert_array_equal(example["text"], source[3]["text"])


BREAKS = (
    Break(
        "latents with the caption of another image",
        "ul/data/sources/captioned.py",
        "text_condition(i % len(self._source))",
        "text_condition(0 * i)",
        "test_latents_of_every_version_of_an_image_have_its_caption",
    ),
)
