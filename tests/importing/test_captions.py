"""Captions to embeddings beside imported images, with an encoder made for the test."""

import json
import shutil
import zlib

import numpy as np
import pytest

from tests.importing.test_images import SIZE, encoded, tar
from ul import importing
from ul.core.errors import ConfigError, DataError, NonFiniteError
from ul.data.sources import imported_captions, registry
from ul.importing import caption_files, captions

CHANNELS, TOKENS = 6, 4
NAMES = [f"{i:04d}.jpg" for i in range(7)]
CAPTIONS = {
    "0000": "a dog",
    "0001": "two dogs and a very small cat",
    "0002": "Käse",
    "0003": "rain",
    "0004": "a dog",
    "0005": "snow on a roof",
    "0006": "a door",
}


def vector(word):
    drawn = np.random.default_rng(zlib.crc32(word.encode())).normal(size=CHANNELS)
    return drawn.astype(np.float32)


def encoder(fail_after=10**9, scale=1.0, **identity):
    """A word's vector is of its own seed; how many captions it embedded is `calls`."""
    calls = []

    def embed(captions):
        calls.extend(captions)
        if len(calls) > fail_after:
            raise KeyboardInterrupt
        return [
            np.stack([scale * vector(word) for word in caption.split()[:TOKENS]])
            for caption in captions
        ]

    said = {"model": "fake", "weights": "00"} | identity
    made = captions.TextEncoder(embed, CHANNELS, TOKENS, said)
    return made, calls


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    """Five training and two held-out images without classes; the fourth is broken."""
    where = tmp_path_factory.mktemp("images")
    pictures = {n: encoded(i) for i, n in enumerate(NAMES)} | {"0003.jpg": b"broken"}
    train = {f"train2017/{n}": pictures[n] for n in NAMES[:5]}
    held_out = {f"val/deep/{n}": pictures[n] for n in NAMES[5:]}
    (where / "train.tar").write_bytes(tar(train))
    (where / "val.tar").write_bytes(tar(held_out))
    paths = {"train": str(where / "train.tar"), "eval": str(where / "val.tar")}
    importing.images_of(
        paths, str(where / "set"), size=SIZE, one_class=True, shard_examples=3, jobs=1,
        max_bad_fraction=0.5,
    )  # fmt: skip
    return str(where / "set")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "captions.tsv"
    lines = (f"{name}.jpg\t{caption}\n" for name, caption in CAPTIONS.items())
    path.write_text("".join(lines))
    return str(path)


def run(image_set, files, out, made=None, **changes):
    how = dict(batch_size=2, shard_examples=3, max_missing_fraction=0.0) | changes
    made = made or encoder()[0]
    return captions.captions_of(image_set, files, str(out), made, **how)


def examples(image_set, out, split="train"):
    source = registry.SOURCES["imported_captions"](
        split, (SIZE, SIZE, 3), path=image_set, captions=str(out)
    )
    return source, [source[i] for i in range(len(source))]


def test_each_image_has_its_caption_though_one_was_rejected(image_set, table, tmp_path):
    manifest = run(image_set, [table], tmp_path / "out")
    assert {s: about["count"] for s, about in manifest["splits"].items()} == {
        "train": 4,
        "eval": 2,
    }
    kept = [NAMES[i] for i in (0, 1, 2, 4)]
    source, found = examples(image_set, tmp_path / "out")
    assert source.text_shape == (TOKENS, CHANNELS) and source.num_classes == 1
    plain = registry.SOURCES["imported"]("train", (SIZE, SIZE, 3), path=image_set)
    for i, name in enumerate(kept):
        caption = CAPTIONS[name.removesuffix(".jpg")]
        assert source.caption(i) == caption
        np.testing.assert_array_equal(found[i]["image"], plain[i]["image"])
        (vectors,) = encoder()[0].embed([caption])
        length = int(found[i]["text_length"])
        assert length == min(len(caption.split()), TOKENS)
        text = found[i]["text"]
        assert text.dtype == np.float16 and text.shape == (TOKENS, CHANNELS)
        np.testing.assert_array_equal(text[:length], vectors.astype(np.float16))
        assert not text[length:].any()
    held_out, _ = examples(image_set, tmp_path / "out", "eval")
    assert held_out.caption(1) == CAPTIONS["0006"]
    assert manifest["splits"]["train"]["full"] == 1


def test_it_goes_on_and_gives_the_same_bytes(image_set, table, tmp_path):
    whole = run(image_set, [table], tmp_path / "whole")
    stops, _ = encoder(fail_after=3)  # in the second shard
    with pytest.raises(KeyboardInterrupt):
        run(image_set, [table], tmp_path / "parts", stops)
    assert not (tmp_path / "parts/manifest.json").exists()
    with pytest.raises(DataError, match="half written"):
        examples(image_set, tmp_path / "parts")
    goes_on, calls = encoder()
    again = run(image_set, [table], tmp_path / "parts", goes_on)
    assert calls == ["a dog", "snow on a roof", "a door"]
    assert again == whole
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    for name in files:
        one, other = (tmp_path / d / name for d in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        (encoder(weights="11")[0], {}, "encoder weights: 00 there, 11 here"),
        (encoder()[0], {"shard_examples": 2}, "shard_examples: 3 there, 2 here"),
    ],
)
def test_another_encoder_does_not_go_on(
    image_set, table, tmp_path, made, changes, message
):
    run(image_set, [table], tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(image_set, [table], tmp_path, made, **changes)


def test_other_captions_do_not_go_on(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    other = tmp_path / "other.tsv"
    other.write_text((tmp_path / "captions.tsv").read_text().replace("a door", "door"))
    with pytest.raises(ConfigError, match="eval captions: "):
        run(image_set, [str(other)], tmp_path / "out")


def test_captions_of_other_images_are_refused(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    path = tmp_path / "out/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": "f" * 64}))
    with pytest.raises(DataError, match="are of the images ffffffffffffffff, but"):
        examples(image_set, tmp_path / "out")


def test_a_damaged_record_is_named(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    source, _ = examples(image_set, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["channels"] += 1
    wrong = imported_captions.Texts(
        imported_captions.store(tmp_path / "out"), manifest, "train"
    )
    with pytest.raises(
        DataError, match="record 0 is another; run the same launch.embed"
    ):
        wrong[0]


def test_images_without_captions_are_an_error_or_empty_text(image_set, tmp_path):
    path = tmp_path / "few.tsv"
    path.write_text("0000.jpg\ta dog\n0005.jpg\t  \n")
    with pytest.raises(DataError, match="5 of 6 images have no caption"):
        run(image_set, [str(path)], tmp_path / "out")
    manifest = run(image_set, [str(path)], tmp_path / "out", max_missing_fraction=0.9)
    assert manifest["splits"]["train"]["empty"] == 3
    source, found = examples(image_set, tmp_path / "out")
    assert [int(f["text_length"]) for f in found] == [2, 0, 0, 0]
    assert not found[1]["text"].any() and source.caption(1) == ""


def test_what_float16_cannot_hold_is_refused(image_set, table, tmp_path):
    with pytest.raises(ConfigError, match="float16 cannot hold"):
        run(image_set, [table], tmp_path / "a", encoder(scale=1e6)[0])
    with pytest.raises(NonFiniteError):
        run(image_set, [table], tmp_path / "b", encoder(scale=np.nan)[0])


def test_sets_from_before_names_were_kept_are_refused(image_set, table, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(image_set, old)
    for file in old.glob("train-*.json"):
        record = json.loads(file.read_text())
        del record["names"]
        file.write_text(json.dumps(record))
    with pytest.raises(DataError, match="before names of images were kept"):
        run(str(old), [table], tmp_path / "out")


def coco(where):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    said = [(12, 3, "second"), (11, 3, "first of b"), (10, 7, "of\n a")]
    annotations = [{"id": i, "image_id": of, "caption": c} for i, of, c in said]
    where.write_text(json.dumps({"images": images, "annotations": annotations}))
    return {"a.jpg": "of a", "b.jpg": "first of b"}


def json_lines(where):
    lines = [
        {"file_name": "a.jpg", "text": "x"},
        {"file_name": "b.jpg", "caption": "y"},
    ]
    where.write_text("\n".join(map(json.dumps, lines)))
    return {"a.jpg": "x", "b.jpg": "y"}


def beside(where):
    files = {"00/a.jpg": b"?", "00/a.txt": b"x\n", "00/b.txt": "ä".encode()}
    where.write_bytes(tar(files))
    return {"00/a": "x", "00/b": "ä"}


@pytest.mark.parametrize(
    ("name", "make"),
    [("c.json", coco), ("c.jsonl", json_lines), ("c.tar", beside)],
)
def test_captions_as_data_sets_have_them(tmp_path, name, make):
    assert make(tmp_path / name) == caption_files.read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.tsv", "a.jpg a dog", "line 1 has no tab"),
        ("c.jsonl", '\n{"file_name": "a"}', "line 2 has no file_name with text"),
        ("c.json", "[]", "no COCO file"),
        ("c.tsv", "", "has none; they must be a .tsv"),
        ("c.csv", "a,b", "they must be a .tsv"),
    ],
)
def test_other_captions_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as e:
        caption_files.read(str(tmp_path / name))
    assert "\n" not in str(e.value)


def test_a_name_that_two_images_have_needs_its_folder(tmp_path):
    names = {"train": ["a/1.jpg", "b/1.jpg"], "eval": []}

    def matched(content):
        (tmp_path / "c.tsv").write_text(content)
        return captions.matched(names, [str(tmp_path / "c.tsv")], 0.0)["train"]

    assert matched("a/1.jpg\tx\nb/1.jpg\ty") == ["x", "y"]
    with pytest.raises(DataError, match="2 images are called so, as a/1.jpg"):
        matched("1.jpg\tx")
