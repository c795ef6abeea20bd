"""Embedding the captions of imported images, with a text encoder made for the test."""

import json
import shutil
import zlib

import numpy as np
import pytest

from tests.importing.test_images import SIZE, encoded
from tests.lib.breaks import Break
from tests.lib.originals import tar_bytes
from ul import importing
from ul.core.errors import ConfigError, DataError, NonFiniteError
from ul.data import record_shards
from ul.data.sources import imported_captions, registry
from ul.importing import caption_files, captions

CHANNELS, TOKENS = 6, 4
NAMES = [f"{i:04d}.jpg" for i in range(7)]
CAPTIONS = {
    "0000": "one dog",
    "0001": "two dogs and a very small cat",
    "0002": "Käse",
    "0003": "rain",
    "0004": "a dog",
    "0005": "snow on a roof",
    "0006": "a door",
}


def word_vector(word):
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    return rng.normal(size=CHANNELS).astype(np.float32)


def make_encoder(fail_after=10**9, scale=1.0, **identity):
    """A text encoder in which each word is its own seed, and the list of its inputs."""
    calls = []

    def embed(captions):
        calls.extend(captions)
        if len(calls) > fail_after:
            raise KeyboardInterrupt
        return [
            np.stack([scale * word_vector(word) for word in caption.split()[:TOKENS]])
            for caption in captions
        ]

    identity = {"model": "fake", "weights": "00"} | identity
    return captions.TextEncoder(embed, CHANNELS, TOKENS, identity), calls


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    """Five training and two held-out images without classes; the fourth is broken."""
    root = tmp_path_factory.mktemp("images")
    images = {n: encoded(i) for i, n in enumerate(NAMES)} | {"0003.jpg": b"broken"}
    train = {f"train2017/{n}": images[n] for n in NAMES[:5]}
    held_out = {f"val/deep/{n}": images[n] for n in NAMES[5:]}
    (root / "train.tar").write_bytes(tar_bytes(train))
    (root / "val.tar").write_bytes(tar_bytes(held_out))
    paths = {"train": str(root / "train.tar"), "eval": str(root / "val.tar")}
    importing.import_images(
        paths, str(root / "set"), size=SIZE, one_class=True, shard_examples=3, jobs=1,
        max_bad_fraction=0.5,
    )  # fmt: skip
    return str(root / "set")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "captions.tsv"
    lines = (f"{name}.jpg\t{caption}\n" for name, caption in CAPTIONS.items())
    path.write_text("".join(lines))
    return str(path)


def run(image_set, files, out, encoder=None, **changes):
    settings = dict(batch_size=2, shard_examples=3, max_missing_fraction=0.0) | changes
    encoder = encoder or make_encoder()[0]
    files = {"train": files, "eval": files}
    return captions.embed_captions(
        image_set, files, str(out), lambda: encoder, **settings
    )


def test_captions_are_read_before_the_encoder_is_loaded(image_set, tmp_path):
    def load():
        raise AssertionError("the encoder was loaded for captions that cannot be used")

    files = {
        "train": [str(tmp_path / "none.tsv")],
        "eval": [str(tmp_path / "none.tsv")],
    }
    with pytest.raises(DataError, match="none.tsv"):
        captions.embed_captions(
            image_set, files, str(tmp_path / "out"), load, batch_size=2, shard_examples=3,
            max_missing_fraction=0.0,
        )  # fmt: skip


def read_examples(image_set, out, split="train"):
    source = registry.SOURCES["imported_captions"](
        split, (SIZE, SIZE, 3), path=image_set, captions=str(out)
    )
    return source, [source[i] for i in range(len(source))]


def test_each_image_has_its_caption_although_one_was_rejected(
    image_set, table, tmp_path
):
    manifest = run(image_set, [table], tmp_path / "out")
    assert {s: about["count"] for s, about in manifest["splits"].items()} == {
        "train": 4,
        "eval": 2,
    }
    imported = [NAMES[i] for i in (0, 1, 2, 4)]
    source, examples = read_examples(image_set, tmp_path / "out")
    assert source.text_shape == (TOKENS, CHANNELS) and source.num_classes == 1
    plain = registry.SOURCES["imported"]("train", (SIZE, SIZE, 3), path=image_set)
    for i, name in enumerate(imported):
        caption = CAPTIONS[name.removesuffix(".jpg")]
        assert source.caption(i) == caption
        np.testing.assert_array_equal(examples[i]["image"], plain[i]["image"])
        (vectors,) = make_encoder()[0].embed([caption])
        length = int(examples[i]["text_length"])
        assert length == min(len(caption.split()), TOKENS)
        text = examples[i]["text"]
        assert text.dtype == np.float16 and text.shape == (TOKENS, CHANNELS)
        np.testing.assert_array_equal(text[:length], vectors.astype(np.float16))
        assert not text[length:].any()
    held_out, _ = read_examples(image_set, tmp_path / "out", "eval")
    assert held_out.caption(1) == CAPTIONS["0006"]
    assert manifest["splits"]["train"]["full"] == 1


def test_an_interrupted_run_is_finished_with_the_same_bytes(image_set, table, tmp_path):
    whole = run(image_set, [table], tmp_path / "whole")
    interrupted, _ = make_encoder(fail_after=3)  # in the second shard
    with pytest.raises(KeyboardInterrupt):
        run(image_set, [table], tmp_path / "parts", interrupted)
    assert not (tmp_path / "parts/manifest.json").exists()
    with pytest.raises(DataError, match="is incomplete"):
        read_examples(image_set, tmp_path / "parts")
    encoder, calls = make_encoder()
    again = run(image_set, [table], tmp_path / "parts", encoder)
    assert calls == ["a dog", "snow on a roof", "a door"]
    assert again == whole
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    for name in files:
        one, other = (tmp_path / d / name for d in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("encoder", "changes", "message"),
    [
        (
            make_encoder(weights="11")[0],
            {},
            "encoder weights: stored 00, requested 11",
        ),
        (
            make_encoder()[0],
            {"shard_examples": 2},
            "shard_examples: stored 3, requested 2",
        ),
    ],
)
def test_another_encoder_cannot_continue(
    image_set, table, tmp_path, encoder, changes, message
):
    run(image_set, [table], tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(image_set, [table], tmp_path, encoder, **changes)


def test_a_run_with_other_captions_cannot_continue(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    other = tmp_path / "other.tsv"
    other.write_text((tmp_path / "captions.tsv").read_text().replace("a door", "door"))
    with pytest.raises(ConfigError, match="eval captions: "):
        run(image_set, [str(other)], tmp_path / "out")


def test_captions_of_other_images_are_refused(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    path = tmp_path / "out/manifest.json"
    changed = json.loads(path.read_text()) | {"images": "f" * 64}
    del changed[record_shards.SEAL]
    path.write_text(json.dumps(changed))
    with pytest.raises(DataError, match="they are of images with digest f{16}"):
        read_examples(image_set, tmp_path / "out")


def test_a_damaged_record_is_named(image_set, table, tmp_path):
    run(image_set, [table], tmp_path / "out")
    source, _ = read_examples(image_set, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["channels"] += 1
    wrong = imported_captions.CaptionReader(
        imported_captions.open_store(tmp_path / "out"), manifest, "train"
    )
    with pytest.raises(
        DataError,
        match="record 0 belongs to another .* Run the same python -m ul embed",
    ):
        wrong[0]


def test_images_without_captions_are_an_error_or_empty_text(image_set, tmp_path):
    path = tmp_path / "incomplete.tsv"
    path.write_text("0000.jpg\ta dog\n0005.jpg\t  \n")
    with pytest.raises(DataError, match="5 of 6 images have no caption"):
        run(image_set, [str(path)], tmp_path / "out")
    manifest = run(image_set, [str(path)], tmp_path / "out", max_missing_fraction=0.9)
    assert manifest["splits"]["train"]["empty"] == 3
    source, examples = read_examples(image_set, tmp_path / "out")
    assert [int(e["text_length"]) for e in examples] == [2, 0, 0, 0]
    assert not examples[1]["text"].any() and source.caption(1) == ""


def test_vectors_that_float16_cannot_hold_are_refused(image_set, table, tmp_path):
    with pytest.raises(ConfigError, match="must fit into float16"):
        run(image_set, [table], tmp_path / "a", make_encoder(scale=1e6)[0])
    with pytest.raises(NonFiniteError):
        run(image_set, [table], tmp_path / "b", make_encoder(scale=np.nan)[0])


def test_imports_of_older_versions_without_names_are_refused(
    image_set, table, tmp_path
):
    old = tmp_path / "old"
    shutil.copytree(image_set, old)
    for file in old.glob("train-*.json"):
        record = json.loads(file.read_text())
        del record["names"]
        file.write_text(json.dumps(record))
    with pytest.raises(DataError, match="older version, which did not keep the names"):
        run(str(old), [table], tmp_path / "out")


def write_coco(path):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    rows = [(12, 3, "second"), (11, 3, "first of b"), (10, 7, "of\n a")]
    annotations = [{"id": i, "image_id": image, "caption": c} for i, image, c in rows]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return {"a.jpg": "of a", "b.jpg": "first of b"}


def write_json_lines(path):
    lines = [
        {"file_name": "a.jpg", "text": "x"},
        {"file_name": "b.jpg", "caption": "y"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return {"a.jpg": "x", "b.jpg": "y"}


def write_tar(path):
    files = {"00/a.jpg": b"?", "00/a.txt": b"x\n", "00/b.txt": "ä".encode()}
    path.write_bytes(tar_bytes(files))
    return {"00/a": "x", "00/b": "ä"}


@pytest.mark.parametrize(
    ("name", "write"),
    [("c.json", write_coco), ("c.jsonl", write_json_lines), ("c.tar", write_tar)],
)
def test_caption_files_of_common_formats(tmp_path, name, write):
    assert write(tmp_path / name) == caption_files.read_captions(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.tsv", "a.jpg a dog", "line 1 has no tab"),
        (
            "c.jsonl",
            '\n{"file_name": "a"}',
            "with file_name and text or caption; line 2 is not",
        ),
        ("c.json", "[]", "must be a COCO file"),
        ("c.tsv", "", "has no captions; it must be a .tsv"),
        ("c.csv", "a,b", "c.csv must be a .tsv"),
    ],
)
def test_other_caption_files_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as e:
        caption_files.read_captions(str(tmp_path / name))
    assert "\n" not in str(e.value)


def match(tmp_path, names, **contents):
    """The captions of the images, from one file for each split or for both."""
    files = {}
    for split, content in contents.items():
        path = tmp_path / f"{split}.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        files[split] = [str(path)]
    files.setdefault("eval", files["train"])
    return captions.match_captions(names, files, 0.0)


def test_a_name_of_two_images_needs_its_folder(tmp_path):
    names = {"train": ["a/1.jpg", "b/1.jpg"], "eval": []}
    matched = match(tmp_path, names, train="a/1.jpg\tx\nb/1.jpg\ty")
    assert matched["train"] == ["x", "y"]
    with pytest.raises(DataError, match="is the name of 2 files, for example a/1.jpg"):
        match(tmp_path, names, train="1.jpg\tx")


def test_images_of_one_name_in_both_splits_need_a_file_each(tmp_path):
    names = {"train": ["000001.jpg"], "eval": ["000001.jpg"]}
    with pytest.raises(DataError, match="is the name of 2 files.*--eval_captions"):
        match(tmp_path, names, train="000001.jpg\ta cat\n")
    own = {"train": "000001.jpg\ta cat\n", "eval": "000001.jpg\ta dog\n"}
    assert match(tmp_path, names, **own) == {"train": ["a cat"], "eval": ["a dog"]}


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ("caf\u00e9.jpg\ta caf\u00e9", "a caf\u00e9"),
        ("cafe\u0301.jpg\tdecomposed, as on macOS", "decomposed, as on macOS"),
        ('caf\u00e9.jpg\t"says ""hi"", twice"', 'says "hi", twice'),
        ('caf\u00e9.jpg\t"Yes" he said', '"Yes" he said'),
        ("\ufeff./caf\u00e9.jpg\ta mark\r\n", "a mark"),
        ("caf\u00e9.jpg\tutf-16".encode("utf-16"), "utf-16"),
        ("caf\u00e9.jpg\tone\ntwo.jpg\tlast of\u2028one line", "one"),
    ],
)
def test_texts_of_other_programs_are_read(tmp_path, content, caption):
    names = {"train": ["caf\u00e9.jpg"], "eval": []}
    assert match(tmp_path, names, train=content)["train"] == [caption]


def test_another_encoding_is_named_with_its_line(tmp_path):
    names = {"train": ["a.jpg", "b.jpg"], "eval": []}
    content = "a.jpg\tx\nb.jpg\tcaf\xe9".encode("latin-1")
    with pytest.raises(DataError, match="must be text in UTF-8; line 2 is not.*iconv"):
        match(tmp_path, names, train=content)


def test_null_is_no_caption_and_the_first_of_a_list_is_used(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [
        '{"file_name": "1", "text": null}',
        '{"file_name": "2", "text": ["", "x", "y"]}',
        '{"file_name": "3", "text": NaN}',
        '{"file_name": "4", "caption": "z"}',
    ]
    path.write_text("\n".join(rows))
    assert caption_files.read_captions(str(path)) == {"2": "x", "4": "z"}
    path.write_text(rows[0] + '\n{"file_name": "2", "text": 7}')
    with pytest.raises(
        DataError, match="line 2 is not .*a caption must be text; got 7"
    ):
        caption_files.read_captions(str(path))
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    annotations = [
        {"id": 1, "image_id": 1, "caption": None},
        {"id": 2, "image_id": 2, "caption": "x"},
    ]
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert caption_files.read_captions(str(path)) == {"2.jpg": "x"}


BREAKS = (
    Break(
        "images with the captions of the first shard",
        "ul/importing/captions.py",
        "own = captions[shard.split][shard.first : shard.first + shard.count]",
        "own = captions[shard.split][: shard.count]",
        "test_each_image_has_its_caption_although_one_was_rejected",
    ),
    Break(
        "captions of other images are accepted",
        "ul/data/sources/imported_captions.py",
        'if manifest["images"] != digest:',
        "if False:",
        "test_captions_of_other_images_are_refused",
    ),
)
