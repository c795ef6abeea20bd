import numpy as np
import pytest

from ul.core.errors import DataError
from ul.data import pipeline, transforms
from ul.data.sources.basic import Items


def whole(*shape):
    return {"image": np.arange(np.prod(shape)).reshape(shape), "label": 0}


def test_an_image_is_cut_where_it_always_was():
    """Two draws, top and then left: runs begun before there were clips go on alike."""
    image = whole(9, 7, 2)
    for seed in range(20):
        rng, old = np.random.default_rng(seed), np.random.default_rng(seed)
        found = transforms.crop(image, rng, shape=(4, 5, 2))["image"]
        top, left = old.integers(6), old.integers(3)
        np.testing.assert_array_equal(
            found, image["image"][top : top + 4, left : left + 5]
        )
        assert rng.random() == old.random()


def test_a_clip_is_cut_in_time_then_down_then_across():
    clip = whole(8, 5, 6, 3)
    for seed in range(20):
        rng, told = np.random.default_rng(seed), np.random.default_rng(seed)
        found = transforms.crop(clip, rng, shape=(3, 4, 4, 3))["image"]
        t, top, left = told.integers(6), told.integers(2), told.integers(3)
        want = clip["image"][t : t + 3, top : top + 4, left : left + 4]
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("shape", [(5, 6, 3), (4, 5, 6, 3)])
def test_of_the_size_it_is_unchanged_and_mirrored_across(shape):
    example = whole(*shape)
    same = transforms.crop(example, np.random.default_rng(0), shape=shape)
    np.testing.assert_array_equal(same["image"], example["image"])
    found = transforms.mirror(example)["image"]
    np.testing.assert_array_equal(found, np.flip(example["image"], -2))


@pytest.mark.parametrize(
    "shape", [(5, 8, 8, 3), (4, 9, 8, 3), (4, 8, 8, 1), (8, 8, 3), (1, 4, 8, 8, 3)]
)
def test_what_cannot_be_cut_so_is_refused(shape):
    with pytest.raises(DataError, match="data.image_shape"):
        transforms.crop(whole(4, 8, 8, 3), np.random.default_rng(0), shape=shape)


def test_batches_of_clips_show_every_part_in_time():
    source = Items(4, lambda i: whole(8, 4, 4, 1), 1)
    dataset = pipeline.examples(
        source, shape=(2, 4, 4, 1), flip=True, seed=0, shuffle=True
    )
    batch = next(pipeline.train_batches(dataset, batch_size=200, start=0, stop=1))
    assert batch["image"].shape == (200, 2, 4, 4, 1)
    assert set(batch["image"][:, 0].min((1, 2, 3)) // 16) == set(range(7))
