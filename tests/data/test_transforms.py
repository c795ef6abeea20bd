"""Crops and flips of images and clips."""

import numpy as np
import pytest

from ul.core.errors import DataError
from ul.data import pipeline, transforms
from ul.data.sources.base import FunctionSource


def make_example(*shape):
    return {"image": np.arange(np.prod(shape)).reshape(shape), "label": 0}


def test_an_image_crop_draws_top_and_then_left():
    """The order of the draws decides the crops of every run, so it must not change."""
    example = make_example(9, 7, 2)
    for seed in range(20):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        cropped = transforms.random_crop(example, rng, shape=(4, 5, 2))["image"]
        top, left = same.integers(6), same.integers(3)
        np.testing.assert_array_equal(
            cropped, example["image"][top : top + 4, left : left + 5]
        )
        assert rng.random() == same.random()


def test_a_clip_crop_draws_the_first_frame_then_top_then_left():
    example = make_example(8, 5, 6, 3)
    for seed in range(20):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        cropped = transforms.random_crop(example, rng, shape=(3, 4, 4, 3))["image"]
        t, top, left = same.integers(6), same.integers(2), same.integers(3)
        expected = example["image"][t : t + 3, top : top + 4, left : left + 4]
        np.testing.assert_array_equal(cropped, expected)


@pytest.mark.parametrize("shape", [(5, 6, 3), (4, 5, 6, 3)])
def test_a_crop_of_the_full_size_changes_nothing_and_a_flip_mirrors_the_width(shape):
    example = make_example(*shape)
    cropped = transforms.random_crop(example, np.random.default_rng(0), shape=shape)
    np.testing.assert_array_equal(cropped["image"], example["image"])
    flipped = transforms.flip_left_right(example)["image"]
    np.testing.assert_array_equal(flipped, np.flip(example["image"], -2))


@pytest.mark.parametrize(
    "shape", [(5, 8, 8, 3), (4, 9, 8, 3), (4, 8, 8, 1), (8, 8, 3), (1, 4, 8, 8, 3)]
)
def test_impossible_crops_are_refused(shape):
    example = make_example(4, 8, 8, 3)
    with pytest.raises(DataError, match="data.image_shape"):
        transforms.random_crop(example, np.random.default_rng(0), shape=shape)


def test_batches_of_clips_contain_every_part_of_the_clips():
    source = FunctionSource(4, lambda i: make_example(8, 4, 4, 1), 1)
    dataset = pipeline.make_dataset(
        source, shape=(2, 4, 4, 1), flip=True, seed=0, shuffle=True
    )
    batch = next(pipeline.train_batches(dataset, batch_size=200, start=0, stop=1))
    assert batch["image"].shape == (200, 2, 4, 4, 1)
    assert set(batch["image"][:, 0].min((1, 2, 3)) // 16) == set(range(7))
