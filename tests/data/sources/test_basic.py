import numpy as np
import pytest
from PIL import Image

from ul.core.errors import ConfigError, DataError
from ul.data import pipeline
from ul.data.sources import basic

DIGITS, SMALL = (8, 8, 1), (16, 16, 3)


def test_digits_have_a_fixed_split_of_all_classes():
    train, held_out = (basic.digits(s, DIGITS) for s in ("train", "eval"))
    assert (len(train), len(held_out)) == (1437, 360)
    labels = np.bincount([held_out[i]["label"] for i in range(360)])
    assert len(labels) == 10 and labels.min() >= 34
    images = {train[i]["image"].tobytes() for i in range(len(train))}
    assert not images & {held_out[i]["image"].tobytes() for i in range(360)}
    assert train[0]["image"].dtype == np.uint8
    assert max(train[i]["image"].max() for i in range(50)) == 255


def test_photos_hold_two_photographs_out():
    train = basic.photos("train", SMALL, reduce=2, crops=3)
    held_out = basic.photos("eval", SMALL, reduce=2, crops=3)
    assert (len(train), len(held_out)) == (24, 6)
    assert {train[i]["label"] for i in range(24)} == set(range(8))
    assert {held_out[i]["label"] for i in range(6)} == {8}
    shapes = {train[i]["image"].shape for i in range(8)}
    assert all(min(s[:2]) >= 64 and s[2] == 3 for s in shapes)


def test_reduce_averages_squares():
    full, half = basic.photograph("coffee", 1), basic.photograph("coffee", 2)
    np.testing.assert_allclose(half[3, 5], full[6:8, 10:12].mean((0, 1)), atol=0.51)


@pytest.fixture
def tree(tmp_path):
    """Two classes of ten flat images each, of odd sizes and modes."""
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(10):
            color = (i * 20, c * 200, 7)
            image = Image.new("RGB", (20 + i, 40 - i), color)
            image.save(tmp_path / name / f"{i}.png")
    Image.new("L", (30, 30), 9).save(tmp_path / "dog" / "grey.png")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def read(tree, split="train", holdout=0.0, bad=0.0):
    return basic.folder(
        split, SMALL, path=str(tree), holdout=holdout, max_bad_fraction=bad
    )


def test_folder_classes_are_subfolders(tree):
    source = read(tree)
    items = [source[i] for i in range(len(source))]
    assert len(items) == 21
    assert sorted({x["label"] for x in items}) == [0, 1]
    assert all(x["image"].shape == SMALL for x in items)
    np.testing.assert_array_equal(items[3]["image"][0, 0], [60, 0, 7])
    np.testing.assert_array_equal(items[-1]["image"][0, 0], [9, 9, 9])


def test_hidden_folders_are_no_classes_and_stray_images_are_said(tree):
    (tree / ".checkpoints").mkdir()
    Image.new("RGB", (9, 9)).save(tree / ".checkpoints" / "a.png")
    assert len(read(tree)) == 21 and read(tree).num_classes == 2
    Image.new("RGB", (9, 9)).save(tree / "logo.png")
    with pytest.raises(DataError, match="logo.png lies beside the class folders"):
        read(tree)


def test_holdout_splits_without_overlap_and_does_not_move(tree):
    train, held_out = read(tree, holdout=0.4), read(tree, "eval", holdout=0.4)
    assert len(train) + len(held_out) == 21 and len(held_out) >= 3
    before = [held_out[i]["image"].tobytes() for i in range(len(held_out))]
    Image.new("RGB", (20, 20)).save(tree / "cat" / "zz.png")
    again = read(tree, "eval", holdout=0.4)
    after = [again[i]["image"].tobytes() for i in range(len(again))]
    assert set(before) <= set(after)


def test_a_broken_file_is_named_counted_and_skipped(tree, caplog):
    (tree / "cat" / "4.png").write_bytes(b"\x89PNG nonsense")
    source = read(tree, bad=0.1)
    np.testing.assert_array_equal(source[4]["image"], source[5]["image"])
    source[4]
    assert [
        r.message for r in caplog.records if "cat/4.png" in r.message
    ].__len__() == 1


def test_a_truncated_file_counts_as_broken(tree):
    path = tree / "dog" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    source = read(tree, bad=0.1)
    np.testing.assert_array_equal(source[12]["image"], source[13]["image"])


def test_too_many_broken_files_stop(tree):
    for i in range(3):
        (tree / "cat" / f"{i}.png").write_bytes(b"")
    source = read(tree, bad=0.1)
    with pytest.raises(DataError, match="3 of 21.*max_bad_fraction"):
        for i in range(4):
            source[i]


def test_missing_or_empty_folders_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="not a directory"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="0 images"):
        read(tmp_path)


def test_arrays(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", image=image, label=np.arange(6))
    np.save(tmp_path / "b.npy", image[:2, :, :, 0])
    how = dict(path=str(tmp_path / "a.npz"), eval_path=str(tmp_path / "b.npy"))
    train = basic.arrays("train", SMALL, **how)
    np.testing.assert_array_equal(train[4]["image"], image[4])
    assert train[4]["label"] == 4
    held_out = basic.arrays("eval", SMALL, **how)
    assert len(held_out) == 2 and held_out[1]["image"].shape == (16, 16, 1)


def test_arrays_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((2, 4, 4, 3), np.float32))
    np.savez(tmp_path / "n.npz", pictures=np.zeros(3))
    np.save(tmp_path / "o.npy", np.asarray([{}], object), allow_pickle=True)
    for name, message in (
        ("f", "uint8"),
        ("n", "'image'"),
        ("o", "cannot be read"),
        ("x", "x.npy"),
    ):
        path = str(tmp_path / (f"{name}.npz" if name == "n" else f"{name}.npy"))
        with pytest.raises(DataError, match=message):
            basic.arrays("train", SMALL, path=path, eval_path=path)


def test_empty_arrays_and_labels_below_zero_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    images = np.zeros((2, 4, 4, 3), np.uint8)
    (tmp_path / "b.npy").write_bytes(b"")
    for content in (
        dict(image=images[:0]),
        dict(image=images, label=np.asarray([0, -1])),
    ):
        np.savez(path, **content)
        with pytest.raises(DataError, match="holds no images"):
            basic.arrays("train", SMALL, path=str(path), eval_path="")
    with pytest.raises(DataError, match="cannot be read"):
        basic.arrays("train", SMALL, path=str(tmp_path / "b.npy"), eval_path="")


def test_an_image_smaller_than_wanted_is_a_data_error(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.zeros((4, 8, 8, 3), np.uint8))
    source = basic.arrays("train", SMALL, path=path, eval_path=path)
    dataset = pipeline.examples(source, shape=SMALL, flip=False, seed=0, shuffle=False)
    with pytest.raises(DataError, match="data.image_shape"):
        dataset[0]


def test_gaussian_images_have_the_spectrum_they_were_given():
    from scipy import fft

    how = dict(exponent=2.0, std=0.25, examples=4096)
    shape = (4, 4, 1)
    found = basic.gaussian("train", shape, **how)
    x = np.stack([found[i]["image"] for i in range(4096)]) / 127.5 - 1.0
    directions = fft.dctn(x, axes=(1, 2), norm="ortho")
    want = basic.gaussian_variances(shape, 2.0, 0.25)
    # A sample variance has relative standard error sqrt(2 / n).
    np.testing.assert_allclose(directions.var(0), want, rtol=4 * np.sqrt(2 / 4096))
    np.testing.assert_allclose(want.mean(), 0.25**2)
    across = np.corrcoef(directions.reshape(4096, -1), rowvar=False)
    assert np.abs(across - np.eye(16)).max() < 5 / np.sqrt(4096)


def test_gaussian_images_depend_on_split_and_index_alone():
    how = dict(exponent=2.0, std=0.25, examples=8)
    one, two = (basic.gaussian("train", (4, 4, 3), **how) for _ in range(2))
    held_out = basic.gaussian("eval", (4, 4, 3), **how)
    np.testing.assert_array_equal(one[5]["image"], two[5]["image"])
    assert not np.array_equal(one[5]["image"], one[4]["image"])
    assert not np.array_equal(one[5]["image"], held_out[5]["image"])


@pytest.mark.parametrize(
    "wrong", [dict(std=0.0), dict(std=0.4), dict(exponent=-1.0), dict(examples=0)]
)
def test_gaussian_settings_out_of_range_are_refused(wrong):
    how = dict(exponent=2.0, std=0.25, examples=8) | wrong
    with pytest.raises(ConfigError, match="data.source"):
        basic.gaussian("train", (4, 4, 1), **how)
