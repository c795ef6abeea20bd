"""Importing image archives, with the damage that real ones have, and reading the result."""

import collections
import dataclasses
import functools
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.lib.breaks import Break
from tests.lib.originals import (
    interrupt_and_rerun,
    kill_and_rerun,
    read_folder,
    tar_bytes,
    write_folder,
)
from ul import importing
from ul.core import sealed_json
from ul.core.errors import ConfigError, DataError
from ul.data import record_shards
from ul.data.sources import imported_images, registry
from ul.importing import archives

SIZE = 16
ARCHIVES = {"train": "train", "eval": "val"}
CLASSES = {"n01440764": 5, "n01443537": 4}  # name: number of intact training images
BAD = {
    "n01440764/empty.JPEG": "it is empty",
    "n01440764/text.JPEG": "it is not an image",
    "n01443537/cut.JPEG": "runcated",
}


def pixels(seed, height=40, width=52):
    """A smooth image, which JPEG hardly changes."""
    y, x = np.mgrid[:height, :width] / 20.0
    planes = [np.sin(x + seed) + np.cos(y * c - seed) for c in (1, 2, 3)]
    return np.uint8(np.clip(127 + 60 * np.stack(planes, -1), 0, 255))


def encoded(seed, format="JPEG", mode="RGB", **options):
    content = io.BytesIO()
    Image.fromarray(pixels(seed)).convert(mode).save(content, format, **options)
    return content.getvalue()


def files():
    """Contents by name, as in ImageNet: also CMYK, gray and a PNG named .JPEG."""
    whole = encoded(8, quality=95)
    return {
        "n01440764/a.JPEG": encoded(0, quality=95),
        "n01440764/b.JPEG": encoded(1, mode="CMYK"),
        "n01440764/c.JPEG": encoded(2, "PNG"),
        "n01440764/d.JPEG": encoded(3, mode="L"),
        "n01440764/e.JPEG": encoded(4, "PNG", mode="RGBA"),
        "n01440764/._a.JPEG": b"Mac OS X",
        "n01440764/empty.JPEG": b"",
        "n01440764/text.JPEG": b"<html>404</html>",
        "n01443537/a.JPEG": encoded(5),
        "n01443537/b.JPEG": encoded(6, exif=rotated_exif()),
        "n01443537/c.JPEG": encoded(7),
        "n01443537/cut.JPEG": whole[: len(whole) // 2],
        "n01443537/d.JPEG": encoded(9),
        "n01443537/readme.txt": b"no image",
    }


def rotated_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def files_of_class(name):
    return {
        file.split("/")[1]: content
        for file, content in files().items()
        if file.startswith(name)
    }


@pytest.fixture
def originals(tmp_path):
    """The two archives of ILSVRC2012 and a list of held-out labels."""
    train = tmp_path / "train.tar"
    train.write_bytes(
        tar_bytes({f"{name}.tar": tar_bytes(files_of_class(name)) for name in CLASSES})
    )
    held_out = {f"ILSVRC2012_val_{i:08d}.JPEG": encoded(20 + i) for i in range(1, 4)}
    (tmp_path / "val.tar").write_bytes(tar_bytes(held_out))
    (tmp_path / "val.txt").write_text("n01443537\nn01440764\nn01440764\n")
    return tmp_path


def run(originals, out, **changes):
    settings = dict(
        labels=str(originals / "val.txt"),
        size=SIZE,
        shard_examples=4,
        jobs=2,
        max_bad_fraction=0.3,
    )
    paths = {split: str(originals / f"{name}.tar") for split, name in ARCHIVES.items()}
    paths |= changes.pop("paths", {})
    return importing.import_images(paths, str(out), **settings | changes)


def read_examples(out, split="train"):
    source = registry.SOURCES["imported"](split, (SIZE, SIZE, 3), path=str(out))
    return [source[i] for i in range(len(source))]


def test_an_import_of_an_older_version_is_continued_with_its_png_files(
    originals, tmp_path
):
    new = run(originals, tmp_path / "new")
    identity = imported_images.open_store(tmp_path / "new").read_begun()
    out = tmp_path / "old"
    out.mkdir()
    old = {k: v for k, v in identity.items() if k not in ("records", "record_digest")}
    (out / "begun.json").write_text(json.dumps(sealed_json.seal(old, "record_digest")))
    manifest = run(originals, out)
    assert manifest["digest"] != new["digest"]
    for a, b in zip(read_examples(out), read_examples(tmp_path / "new"), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    shards = b"".join(p.read_bytes() for p in out.glob("*.array_record"))
    assert shards.count(b"\x89PNG") == sum(
        split["count"] for split in manifest["splits"].values()
    )


def test_intact_files_are_imported_and_broken_ones_listed(originals, tmp_path):
    manifest = run(originals, tmp_path / "out")
    assert manifest["classes"] == list(CLASSES)
    assert manifest["splits"]["train"]["labels"] == list(CLASSES.values())
    assert manifest["splits"]["eval"]["labels"] == [2, 1]
    rejected = {file["file"]: file["why"] for file in manifest["rejected"]}
    assert rejected.keys() == BAD.keys()
    assert all(BAD[name] in reason for name, reason in rejected.items())
    assert "n01443537/cut.JPEG" in (tmp_path / "out/rejected.txt").read_text()
    assert [e["label"] for e in read_examples(tmp_path / "out")] == [0] * 5 + [1] * 4
    assert [e["label"] for e in read_examples(tmp_path / "out", "eval")] == [1, 0, 0]


def test_pixels_are_those_of_the_reference_crop(originals, tmp_path):
    run(originals, tmp_path / "out")
    imported = [e["image"] for e in read_examples(tmp_path / "out")]
    names = [n for n in sorted(files()) if n.endswith("JPEG") and n not in BAD]
    names.remove("n01440764/._a.JPEG")
    for name, pixels_of_name in zip(names, imported, strict=True):
        with Image.open(io.BytesIO(files()[name])) as image:
            upright = ImageOps.exif_transpose(image)
            candidates = reference_crops(np.asarray(upright.convert("RGB")))
        assert any(np.array_equal(pixels_of_name, c) for c in candidates), name


@pytest.mark.parametrize(
    "shape", [(40, 52), (97, 33), (150, 16), (64, 64), (9, 20), (31, 115), (139, 17)]
)
def test_any_shape_is_cropped_as_the_reference_does(shape):
    """Exactly, on noise: portrait, halved often, enlarged, nearly too long."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    crop = np.asarray(imported_images.center_crop_square(Image.fromarray(noise), SIZE))
    assert any(np.array_equal(crop, c) for c in reference_crops(noise))


def reference_crops(image):
    """The crop with columns resized first, and with rows resized first.

    Each direction rounds to whole levels, and Pillow chooses which one it resizes first.
    """
    return [reference_crop(image, order) for order in ((1, 0), (0, 1))]


def reference_crop(image, order):
    height, width = image.shape[:2]
    while min(height, width) >= 2 * SIZE:
        height, width = height // 2, width // 2
        image = resized(image, (height, width), order, 0.5, box)
    scale = SIZE / min(height, width)
    height, width = round(height * scale), round(width * scale)
    image = resized(image, (height, width), order, 2.0, cubic)
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    return image[top : top + SIZE, left : left + SIZE]


def box(t):
    return np.where((t > -0.5) & (t <= 0.5), 1.0, 0.0)


def cubic(t):
    """The cubic kernel of Keys with a = -1/2."""
    t = np.abs(t)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def resized(image, shape, order, support, kernel):
    """Resize in integers, with weights in multiples of 2^-22 as in Pillow."""
    for axis in order:
        weights = fixed_point(image.shape[axis], shape[axis], support, kernel)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
        image = np.clip((image + 2**21) >> 22, 0, 255)
    return image


def fixed_point(size, new_size, support, kernel):
    """The weight of each of `size` pixels in each of `new_size` pixels, times 2^22."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    result = np.zeros((new_size, size), np.int64)
    for i in range(new_size):
        center, reach = (i + 0.5) * scale, support * stretch
        first, last = max(0, int(center - reach + 0.5)), int(center + reach + 0.5)
        pixel = np.arange(first, min(size, last))
        weights = kernel((pixel + 0.5 - center) / stretch)
        result[i, pixel] = np.rint(weights / weights.sum() * 2**22)
    return result


def test_a_square_of_the_right_size_is_unchanged():
    square = Image.fromarray(pixels(0, 32, 32))
    crop = np.asarray(imported_images.center_crop_square(square, 32))
    np.testing.assert_array_equal(crop, np.asarray(square))


def test_a_folder_and_any_number_of_jobs_give_the_same_shards(originals, tmp_path):
    folder = write_folder(tmp_path / "train", files())
    (tmp_path / "labels.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000003,n01440764 1 2 3 4\n"
        "ILSVRC2012_val_00000001,n01443537 9 9 9 9 n01443537 1 1 1 1\n"
        "ILSVRC2012_val_00000002,n01440764 85 1 499 272\n"
    )
    run(originals, tmp_path / "one", jobs=1)
    labels = str(tmp_path / "labels.csv")
    run(originals, tmp_path / "two", jobs=8, paths={"train": folder}, labels=labels)
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")


@pytest.mark.parametrize("after", [1, 6, 11])
def test_an_import_interrupted_anywhere_is_finished_with_the_same_bytes(
    originals, tmp_path, after, monkeypatch
):
    whole, out = interrupt_and_rerun(
        monkeypatch,
        imported_images,
        functools.partial(run, originals),
        read_examples,
        tmp_path,
        after,
        "import_images",
    )
    assert read_folder(out) == read_folder(whole)


def test_a_damaged_shard_is_refused_until_it_is_written_again(originals, tmp_path):
    out = tmp_path / "out"
    run(originals, out)
    before = read_folder(out)
    path = out / "train-00001-of-00003.array_record"
    path.write_bytes(before[path.name][:-1])
    with pytest.raises(DataError, match="00001-of-00003.* bytes, not"):
        read_examples(out)
    run(originals, out)
    assert read_folder(out) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_bad_fraction": 0.1}, DataError, r"files may be broken; 3 of 15 are"),
        (
            {"labels": None},
            DataError,
            "in no class folder .*1 of 3 such files.*--eval_lab",
        ),
        (
            {"paths": {"train": "nowhere"}},
            DataError,
            "'nowhere' must be a folder or a .tar",
        ),
        ({"paths": {"train": "val.tar"}}, DataError, "no class folders"),
        (
            {"paths": {"train": "cut.tar"}},
            DataError,
            "without compression; .*the file is truncated",
        ),
        ({"paths": {"train": "zip.tar"}}, DataError, "without compression"),
        ({"labels": "short.txt"}, DataError, "has none for ILSVRC2012_val_00000001"),
        ({"labels": "no.txt"}, DataError, "no.txt cannot be read"),
    ],
)
def test_archives_that_cannot_be_imported_are_refused(
    originals, tmp_path, monkeypatch, changes, error, message
):
    import gzip

    monkeypatch.chdir(originals)
    whole = (originals / "train.tar").read_bytes()
    (originals / "zip.tar").write_bytes(gzip.compress(whole))
    # It ends between two members, where tarfile notices nothing.
    second = list(tarfile.open(originals / "train.tar"))[1].offset
    (originals / "cut.tar").write_bytes(whole[:second])
    (originals / "short.txt").write_text("n01440764\n")
    with pytest.raises(error, match=message) as e:
        run(originals, tmp_path / "out", **changes)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out/manifest.json").exists()


def modification_times(out) -> dict[str, int]:
    return {f.name: f.stat().st_mtime_ns for f in out.glob("*.array_record")}


def test_a_repaired_file_is_imported_and_other_shards_are_kept(tmp_path):
    """Before a complete import as well as after one that had rejected the file."""
    train = pngs(*(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))
    held_out = pngs("cat/0.png")
    broken = train | {"cat/3.png": train["cat/3.png"][:-50]}
    run_on_folders(tmp_path / "whole", train, held_out)
    expected = read_folder(tmp_path / "whole" / "out")
    for fraction in (0.01, 0.5):
        path = tmp_path / str(fraction)
        if fraction == 0.01:
            with pytest.raises(DataError, match="1 of 9 are. .*repair them"):
                run_on_folders(path, broken, held_out, max_bad_fraction=fraction)
        else:
            run_on_folders(path, broken, held_out, max_bad_fraction=fraction)
        before = modification_times(path / "out")
        run_on_folders(path, train, held_out, max_bad_fraction=fraction)
        after = modification_times(path / "out")
        assert {name for name in after if after[name] != before[name]} == {
            "train-00001-of-00004.array_record"
        }
        assert read_folder(path / "out") == expected


def test_a_complete_import_of_other_files_is_not_touched(tmp_path):
    train = pngs(*TRAIN)
    run_on_folders(tmp_path, train, pngs("cat/0.png"))
    before = read_folder(tmp_path / "out")
    (tmp_path / "t" / "cat" / "0.png").write_bytes(encoded(99, "PNG"))
    with pytest.raises(ConfigError, match="train listing: stored"):
        run_on_folders(tmp_path, {}, {})
    assert read_folder(tmp_path / "out") == before


def test_loops_of_links_are_listed_once(tmp_path, caplog):
    train = tmp_path / "t"
    write_folder(train, pngs("cat/0.png", "dog/0.png", "dog/1.png"))
    for name in ("cat", "dog"):
        (train / name / "loop").symlink_to("..")
    manifest = run_on_folders(tmp_path, {}, pngs("cat/0.png"))
    assert manifest["splits"]["train"]["labels"] == [1, 2]
    assert "skipped 2 entries: links to folders" in caplog.text


def test_another_import_is_not_overwritten(originals, tmp_path):
    run(originals, tmp_path / "out")
    with pytest.raises(ConfigError, match="size: stored 16, requested 8"):
        run(originals, tmp_path / "out", size=8)
    whole = (originals / "val.tar").read_bytes()
    (originals / "val.tar").write_bytes(tar_bytes({"x.JPEG": encoded(1)}) or whole)
    (originals / "val.txt").write_text("n01440764\n")
    with pytest.raises(ConfigError, match="eval files: stored 3, requested 1"):
        run(originals, tmp_path / "out")


def test_another_pillow_cannot_continue_an_import_but_read_it(
    originals, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(originals, out)
    monkeypatch.setattr(imported_images.PIL, "__version__", "1.2.3")
    with pytest.raises(
        ConfigError, match=r"made with pillow: stored \d.*, installed 1.2.3"
    ):
        run(originals, out)
    for name in ("begun.json", "manifest.json"):  # As older versions wrote them.
        content = json.loads((out / name).read_text())
        assert content.pop("made_with")["pillow"] != "1.2.3"
        del content[record_shards.SEAL]
        (out / name).write_text(json.dumps(content))
    assert len(read_examples(out)) == sum(CLASSES.values())
    with pytest.raises(ConfigError, match="pillow: stored an unknown version") as e:
        run(originals, out)
    assert "\n" not in str(e.value)


def test_images_of_another_size_are_refused(originals, tmp_path):
    run(originals, tmp_path / "out")
    with pytest.raises(DataError, match=r"must be \(16, 16, 3\).* got \(32, 32, 3\)"):
        registry.SOURCES["imported"]("train", (32, 32, 3), path=str(tmp_path / "out"))
    with pytest.raises(DataError, match="No set of imported images found .* Write one"):
        registry.SOURCES["imported"]("train", (16, 16, 3), path=str(tmp_path / "none"))


def test_an_entry_is_a_range_of_bytes(originals):
    skipped = collections.Counter()
    entries = list(archives.iterate_entries(str(originals / "train.tar"), skipped))
    assert skipped == {"hidden": 1}
    visible = {name: content for name, content in files().items() if "._" not in name}
    assert {e.name: e.read() for e in entries} == visible
    longer = dataclasses.replace(entries[0], size=10**6)
    assert longer.read().startswith(entries[0].read())


def pngs(*names):
    return {name: encoded(i, "PNG") for i, name in enumerate(names)}


def run_on_folders(tmp_path, train, held_out, out="out", **changes):
    paths = {
        "train": write_folder(tmp_path / "t", train),
        "eval": write_folder(tmp_path / "e", held_out),
    }
    settings = dict(size=8, shard_examples=2, jobs=1, max_bad_fraction=0.5) | changes
    return importing.import_images(paths, str(tmp_path / out), **settings)


TRAIN = ("big horse/0.png", "cat/0.png", "dog/0.png", "dog/1.png")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a.1.png cat\na.2.png dog\nb.png big horse\n", [1, 2, 0]),
        ("b cat\na.2 dog\na.1 big horse\n", [0, 2, 1]),
        ("\ufeffcat\r\nbig horse\r\ncat\r\n", [1, 0, 1]),
        ("a.1.png,cat 1 2 3 4\na.2.png,dog 9 9 9 9\nb.png,big horse\n", [1, 2, 0]),
    ],
)
def test_held_out_labels_are_read_in_all_formats(tmp_path, text, labels):
    (tmp_path / "l.txt").write_text(text)
    held_out = pngs("a.1.png", "a.2.png", "b.png")
    manifest = run_on_folders(
        tmp_path, pngs(*TRAIN), held_out, labels=str(tmp_path / "l.txt")
    )
    assert manifest["classes"] == ["big horse", "cat", "dog"]
    source = registry.SOURCES["imported"]("eval", (8, 8, 3), path=str(tmp_path / "out"))
    assert [source[i]["label"] for i in range(3)] == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.1.png cat\na.2.png dog\na.1.png dog\nb cat\n", "a.1.png is cat and dog"),
        (
            "a.1.png cat\na.2.png cow\nb.png dog\n",
            "have classes that --train has; a.2.png is of class 'cow'",
        ),
        ("a.1.png cat\n", "has none for a.2.png"),
    ],
)
def test_contradictory_unknown_and_missing_labels_are_refused(tmp_path, text, message):
    (tmp_path / "l.txt").write_text(text)
    held_out = pngs("a.1.png", "a.2.png", "b.png")
    with pytest.raises(DataError, match=message):
        run_on_folders(tmp_path, pngs(*TRAIN), held_out, labels=str(tmp_path / "l.txt"))


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (("logo.png", *TRAIN), TRAIN, "logo.png lies beside the class folders"),
        (
            ("t/cat/0.png", "t/dog/0.png"),
            TRAIN,
            "one folder, t, with all classes in it",
        ),
        (
            TRAIN,
            ("cow/0.png",),
            "have classes that --train has; cow/0.png is of class 'cow'",
        ),
        (("cat/0.gif",), TRAIN, r"must hold images \(.*\); found none, only 1 .gif"),
    ],
)
def test_folders_that_are_not_classes_are_refused(tmp_path, train, held_out, message):
    with pytest.raises(DataError, match=message):
        run_on_folders(tmp_path, pngs(*train), pngs(*held_out))


def test_odd_names_and_links(tmp_path, caplog):
    """Hidden folders are ignored, other files are counted, links are followed."""
    folder = tmp_path / "t"
    write_folder(folder, pngs(*TRAIN, ".checkpoints/x.png", "cat/z.tif"))
    write_folder(tmp_path / "far", pngs("0.png", "1.png"))
    (folder / "cow").symlink_to(tmp_path / "far")
    (folder / b"dog/\xff.png".decode(errors="surrogateescape")).write_bytes(b"")
    manifest = run_on_folders(tmp_path, {}, pngs("cat/0.png"))
    assert manifest["classes"] == ["big horse", "cat", "cow", "dog"]
    assert manifest["splits"]["train"]["labels"] == [1, 1, 2, 2]
    assert manifest["rejected"][0]["file"] == "dog/\ufffd.png"
    assert "ignored files that are not images: 1 .tif" in caplog.text
    (folder / "cat/gone.png").symlink_to("nowhere")
    run_on_folders(tmp_path, {}, {}, out="other")
    assert "skipped 1 entries: links to nothing" in caplog.text
    (tmp_path / "out/begun.json").unlink()
    with pytest.raises(ConfigError, match="must have begun.json"):
        run_on_folders(tmp_path, {}, {})


def test_links_in_a_tar_are_followed(tmp_path):
    write_folder(tmp_path / "t", pngs(*TRAIN))
    (tmp_path / "t/cat/same.png").hardlink_to(tmp_path / "t/big horse/0.png")
    (tmp_path / "t/dog/too.png").symlink_to("../cat/0.png")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tmp_path / "t", "/abs/..")
    entries = archives.iterate_entries(str(tmp_path / "t.tar"), collections.Counter())
    contents_by_name = {e.name: e.read() for e in entries}
    names = (*TRAIN, "cat/same.png", "dog/too.png")
    assert contents_by_name == {
        name: (tmp_path / "t" / name).read_bytes() for name in names
    }


def test_16_bit_and_elongated_images_are_rejected_and_a_split_needs_an_intact_one(
    tmp_path,
):
    deep, elongated = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((9, 9), 9000, np.uint16)).save(deep, "PNG")
    Image.new("RGB", (9000, 1)).save(elongated, "PNG")
    bad = {"cat/a.png": deep.getvalue(), "cat/b.png": elongated.getvalue()}
    manifest = run_on_folders(tmp_path, pngs(*TRAIN) | bad, pngs("cat/0.png"))
    reasons = [file["why"] for file in manifest["rejected"]]
    assert reasons == [
        "mode I;16 does not have 8 bits per channel",
        "its aspect ratio (9000x1) is above 64",
    ]
    (tmp_path / "e/cat/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="--eval .* at least one intact image"):
        run_on_folders(tmp_path, {}, {}, out="other")


@pytest.mark.processes
def test_an_import_that_was_killed_is_finished_with_the_same_bytes(
    originals, command, tmp_path
):
    train = {f"c{i % 2}/{i:04d}.png": encoded(i, "PNG") for i in range(600)}
    folder = write_folder(tmp_path / "train", train)
    held_out = write_folder(tmp_path / "eval", dict(list(train.items())[:9]))
    head = ("import_images", f"--train={folder}", f"--eval={held_out}", "--size=256")
    arguments = (*head, "--shard_examples=50", "--jobs=2")
    whole, killed = kill_and_rerun(command, tmp_path, 12, *arguments)
    assert read_folder(killed) == read_folder(whole)
    assert json.loads((whole / "manifest.json").read_text())["rejected"] == []


BREAKS = (
    Break(
        "a truncated tar taken for a complete one",
        "ul/importing/archives.py",
        "if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:",
        "if False:",
        "test_archives_that_cannot_be_imported_are_refused",
    ),
    Break(
        "held-out labels read in the order of the file",
        "ul/importing/images.py",
        "return [label for label in labels if label is not None]",
        "return list(class_by_name.values())[: len(entries)]",
        "test_held_out_labels_are_read_in_all_formats",
    ),
)
