"""A folder of images as a source, with the damage that real folders have."""

import errno

import numpy as np
import pytest
from PIL import Image

from ul.core import storage
from ul.core.errors import DataError, StorageError
from ul.data.sources import folder

SHAPE = (16, 16, 3)


@pytest.fixture
def tree(tmp_path):
    """Two classes with ten flat images each, of odd sizes and modes."""
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(10):
            color = (i * 20, c * 200, 7)
            image = Image.new("RGB", (20 + i, 40 - i), color)
            image.save(tmp_path / name / f"{i}.png")
    Image.new("L", (30, 30), 9).save(tmp_path / "dog" / "grey.png")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def make_source(tree, split="train", holdout=0.0, max_bad_fraction=0.0, **settings):
    return folder.make_source(
        split,
        SHAPE,
        path=str(tree),
        holdout=holdout,
        max_bad_fraction=max_bad_fraction,
        **settings,
    )


def test_classes_are_subfolders(tree):
    source = make_source(tree)
    examples = [source[i] for i in range(len(source))]
    assert len(examples) == 21
    assert sorted({e["label"] for e in examples}) == [0, 1]
    assert all(e["image"].shape == SHAPE for e in examples)
    np.testing.assert_array_equal(examples[3]["image"][0, 0], [60, 0, 7])
    np.testing.assert_array_equal(examples[-1]["image"][0, 0], [9, 9, 9])


def test_hidden_folders_are_not_classes_and_stray_images_are_refused(tree):
    (tree / ".checkpoints").mkdir()
    Image.new("RGB", (9, 9)).save(tree / ".checkpoints" / "a.png")
    source = make_source(tree)
    assert len(source) == 21 and source.num_classes == 2
    Image.new("RGB", (9, 9)).save(tree / "logo.png")
    with pytest.raises(DataError, match="logo.png lies beside the class folders"):
        make_source(tree)


def test_holdout_splits_without_overlap_and_new_files_move_no_others(tree):
    train = make_source(tree, holdout=0.4)
    held_out = make_source(tree, "eval", holdout=0.4)
    assert len(train) + len(held_out) == 21 and len(held_out) >= 3
    before = [held_out[i]["image"].tobytes() for i in range(len(held_out))]
    Image.new("RGB", (20, 20)).save(tree / "cat" / "zz.png")
    again = make_source(tree, "eval", holdout=0.4)
    after = [again[i]["image"].tobytes() for i in range(len(again))]
    assert set(before) <= set(after)


def test_an_unreadable_file_is_logged_once_and_replaced_by_the_next(tree, caplog):
    (tree / "cat" / "4.png").write_bytes(b"\x89PNG nonsense")
    source = make_source(tree, max_bad_fraction=0.1)
    np.testing.assert_array_equal(source[4]["image"], source[5]["image"])
    source[4]
    assert len([r for r in caplog.records if "cat/4.png" in r.message]) == 1


@pytest.mark.parametrize("num_failures", [2, 99])
def test_storage_that_fails_replaces_no_image(tree, monkeypatch, num_failures):
    """Another run would read the file, and the two would have other examples."""
    source, opened, left = make_source(tree), Image.open, [num_failures]
    expected = source[0]["image"]

    def fail(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return opened(*args, **kwargs)

    monkeypatch.setattr(Image, "open", fail)
    if num_failures > storage.MAX_ATTEMPTS:
        with pytest.raises(StorageError, match="cannot be read: .*Input/output error"):
            source[0]
    else:
        np.testing.assert_array_equal(source[0]["image"], expected)


def test_a_truncated_file_is_unreadable(tree):
    path = tree / "dog" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    source = make_source(tree, max_bad_fraction=0.1)
    np.testing.assert_array_equal(source[12]["image"], source[13]["image"])


def test_too_many_unreadable_files_are_a_data_error(tree):
    for i in range(3):
        (tree / "cat" / f"{i}.png").write_bytes(b"")
    source = make_source(tree, max_bad_fraction=0.1)
    with pytest.raises(DataError, match="At most 2 images.*3 are, most recently"):
        for i in range(4):
            source[i]


def test_one_broken_file_is_always_allowed_in_either_split(tree):
    """One file of a small held-out part is more than the tolerated fraction of it."""
    held_out = make_source(tree, "eval", holdout=0.4, max_bad_fraction=0.001)
    path = held_out._names[0]
    with open(path, "wb"):
        pass
    held_out.verify(len(held_out), threads=2)
    with open(held_out._names[1], "wb"):
        pass
    with pytest.raises(DataError, match="At most 1 images may be unreadable"):
        held_out.verify(len(held_out), threads=2)


def test_splits_are_not_classes(tree):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tree / "data" / split / name).mkdir(parents=True)
            for i in range(3):
                path = tree / "data" / split / name / f"{i}.png"
                Image.new("RGB", (20, 20), (i, 0, 0)).save(path)
    with pytest.raises(DataError, match=r"they are splits: train, val\. .*/data/train"):
        make_source(tree / "data")
    settings = dict(eval_path=str(tree / "data" / "val"))
    train = make_source(tree / "data" / "train", **settings)
    held_out = make_source(tree / "data" / "train", "eval", **settings)
    for source in (train, held_out):
        assert len(source) == 6 and source.num_classes == 2
        assert source.report.classes == {"cat": 3, "dog": 3}
    assert train.report.digest == held_out.report.digest  # the same names and sizes
    Image.new("RGB", (200, 20)).save(tree / "data" / "val" / "dog" / "0.png")
    changed = make_source(tree / "data" / "train", "eval", **settings)
    assert changed.report.digest != held_out.report.digest
    (tree / "data" / "val" / "dog").rename(tree / "data" / "val" / "cow")
    with pytest.raises(DataError, match="cow is not"):
        make_source(tree / "data" / "train", "eval", **settings)


def test_a_linked_class_is_a_class_and_what_is_skipped_is_counted(
    tree, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (20, 20)).save(elsewhere / "1.png")
    (tree / "emu").symlink_to(elsewhere)
    (tree / "dog" / "loop").symlink_to("..")
    source = make_source(tree)
    assert source.report.classes == {"cat": 10, "dog": 11, "emu": 1}
    assert source.report.skipped == {
        "links to folders that are listed already": 1,
        "no image suffix (.txt)": 1,
    }


def test_names_that_are_not_utf8_are_read_and_reported(tree, caplog):
    raw = str(tree / "cat").encode() + b"/caf\xe9.png"
    Image.new("RGB", (20, 20), (1, 2, 3)).save(tree / "new.png")
    (tree / "new.png").rename(raw.decode(errors="surrogateescape"))
    source = make_source(tree, max_bad_fraction=0.1)
    assert len(source) == 22
    np.testing.assert_array_equal(source[10]["image"][0, 0], [1, 2, 3])
    with open(raw, "wb") as file:
        file.write(b"nothing")
    source[10]
    assert "caf\ufffd.png" in caplog.text


def test_missing_and_empty_folders_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="must be an existing directory; got"):
        make_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match="must hold images .*; found none"):
        make_source(tmp_path)
