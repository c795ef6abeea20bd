"""NumPy files as a source."""

import numpy as np
import pytest

from ul.core.errors import DataError
from ul.data import pipeline
from ul.data.sources import arrays

SHAPE = (16, 16, 3)


def test_images_and_labels_of_both_file_formats(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", image=image, label=np.arange(6))
    np.save(tmp_path / "b.npy", image[:2, :, :, 0])
    paths = dict(path=str(tmp_path / "a.npz"), eval_path=str(tmp_path / "b.npy"))
    train = arrays.make_source("train", SHAPE, **paths)
    np.testing.assert_array_equal(train[4]["image"], image[4])
    assert train[4]["label"] == 4
    held_out = arrays.make_source("eval", SHAPE, **paths)
    assert len(held_out) == 2 and held_out[1]["image"].shape == (16, 16, 1)


def test_other_arrays_are_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((2, 4, 4, 3), np.float32))
    np.savez(tmp_path / "n.npz", pictures=np.zeros(3))
    np.save(tmp_path / "o.npy", np.asarray([{}], object), allow_pickle=True)
    for name, message in (
        ("f", "uint8"),
        ("n", "'image'"),
        ("o", "it holds pickled objects"),
        ("x", "x.npy"),
    ):
        path = str(tmp_path / (f"{name}.npz" if name == "n" else f"{name}.npy"))
        with pytest.raises(DataError, match=message):
            arrays.make_source("train", SHAPE, path=path, eval_path=path)


def test_empty_arrays_and_negative_labels_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    images = np.zeros((2, 4, 4, 3), np.uint8)
    (tmp_path / "b.npy").write_bytes(b"")
    for content, message in (
        (dict(image=images[:0]), "at least one image"),
        (dict(image=images, label=np.asarray([0, -1])), "must be 0 or more; got -1"),
    ):
        np.savez(path, **content)
        with pytest.raises(DataError, match=message):
            arrays.make_source("train", SHAPE, path=str(path), eval_path="")
    with pytest.raises(DataError, match="cannot be read"):
        arrays.make_source("train", SHAPE, path=str(tmp_path / "b.npy"), eval_path="")


LABELS = np.arange(8) % 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dict(labels=LABELS), "must be an array named 'label'; found 'labels'"),
        (dict(y=LABELS, names=LABELS), "found 'y'"),
        (dict(label=np.eye(4, dtype=int)[LABELS]), r"got int64\[8, 4\]"),
        (dict(label=LABELS[:, None]), r"got int64\[8, 1\]"),
        (dict(label=np.array(["cat", "dog"] * 4)), "whole numbers .* got <U3"),
        (dict(label=np.where(LABELS == 0, np.nan, LABELS)), "got float64"),
        (dict(label=LABELS[:7]), r"shape \[8\], one for each image; got int64\[7\]"),
    ],
)
def test_labels_are_whole_numbers_one_for_each_image(tmp_path, content, message):
    path = str(tmp_path / "a.npz")
    np.savez(path, image=np.zeros((8, 8, 8, 3), np.uint8), **content)
    with pytest.raises(DataError, match=message):
        arrays.make_source("train", SHAPE, path=path, eval_path="other.npz")


def test_what_is_ignored_is_named_and_one_file_for_both_splits_is_noticed(
    tmp_path, caplog
):
    path = str(tmp_path / "a.npz")
    np.savez(path, image=np.zeros((2, 8, 8, 3), np.uint8), names=np.zeros(2))
    source = arrays.make_source("eval", SHAPE, path=path, eval_path=path)
    assert source.report.classes == {"0": 2}
    assert "ignored the arrays names" in caplog.text
    assert "training and held-out images are the same file" in caplog.text


def test_an_image_smaller_than_the_config_says_is_a_data_error(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.zeros((4, 8, 8, 3), np.uint8))
    source = arrays.make_source("train", SHAPE, path=path, eval_path=path)
    dataset = pipeline.make_dataset(
        source, shape=SHAPE, flip=False, seed=0, shuffle=False
    )
    with pytest.raises(DataError, match="data.image_shape"):
        dataset[0]
