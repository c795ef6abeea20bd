import dataclasses
import json
import zipfile

import jax
import numpy as np
import pytest

from tests.lib import clip_files, torch_states
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.evaluation import samples_npz
from ul.metrics import clip_score
from ul.metrics.clip_score import ClipScore
from ul.metrics.features import weights

COUNT = 7
IMAGES = torch_states.images(1, COUNT, 30, 40, 3)
IMAGES[1::2] = 255 - IMAGES[1::2]  # not all alike
CAPTIONS = tuple(f"a cat {n} and dog {n * n}" for n in range(COUNT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip_files.converted(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def network(folder):
    return clip_score.load(folder)


def score(network, *cuts, devices=1):
    found = ClipScore(network, meshes.make(devices=jax.devices()[:devices]))
    for rows in np.split(np.arange(COUNT), cuts):
        found.add(IMAGES[rows], [CAPTIONS[i] for i in rows])
    return found


def test_the_figures_by_hand():
    """Cosines 1, 0.6, 0, -1: of embeddings of any length."""
    image = np.array([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    text = np.array([[7.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(clip_score.cosines(image, text), [1, 0.6, 0, -1])
    np.testing.assert_allclose(clip_score.clip_score(image, text), 15.0)
    np.testing.assert_allclose(clip_score.clipscore(image, text), 1.0)


def test_both_figures_and_their_errors_are_of_the_embeddings(network):
    # Of these weights some cosines are below 0, some above.
    found = score(dataclasses.replace(network, params=clip_files.parameters(seed=8)))
    image = found.images(IMAGES)
    text = found.texts(CAPTIONS)
    prefixed = found.texts([f"A photo depicts {caption}" for caption in CAPTIONS])
    np.testing.assert_allclose(found.value(), clip_score.clip_score(image, text))
    record = found.record()
    assert record["clip_score"] == found.value()
    want = clip_score.clipscore(image, prefixed)
    np.testing.assert_allclose(record["clipscore"], want)
    cosine = clip_score.cosines(image, text)
    assert np.std(cosine) > 0.01 and min(cosine) < -0.01 and max(cosine) > 0.01
    sem = 100 * np.std(cosine, ddof=1) / np.sqrt(COUNT)
    np.testing.assert_allclose(record["clip_score_sem"], sem)
    floored = 2.5 * np.maximum(clip_score.cosines(image, prefixed), 0)
    sem = np.std(floored, ddof=1) / np.sqrt(COUNT)
    np.testing.assert_allclose(record["clipscore_sem"], sem)


def test_it_depends_neither_on_the_parts_nor_on_the_devices(network):
    want = score(network).record()
    got = score(network, 4, 4, devices=2)
    assert got.count == COUNT
    for name, value in got.record().items():
        np.testing.assert_allclose(value, want[name], rtol=1e-5, err_msg=name)


def test_grey_images_are_scored(network):
    grey, coloured = score(network, COUNT), score(network, COUNT)
    grey.add(IMAGES[..., :1], CAPTIONS)
    coloured.add(np.repeat(IMAGES[..., :1], 3, axis=-1), CAPTIONS)
    assert grey.record() == coloured.record()


def test_what_cannot_be_scored_is_refused(network):
    found = ClipScore(network, meshes.make())
    with pytest.raises(DataError, match="3 images and 2 captions"):
        found.add(IMAGES[:3], CAPTIONS[:2])
    found.add(IMAGES[:1], CAPTIONS[:1])
    with pytest.raises(DataError, match="2 pairs or more, not 1"):
        found.value()
    cls = {**network.params, "image.cls": np.full(32, np.nan, np.float32)}
    broken = ClipScore(dataclasses.replace(network, params=cls), meshes.make())
    with pytest.raises(DataError, match="pairs 0.. are not finite"):
        broken.add(IMAGES[:1], CAPTIONS[:1])


def test_without_weights_the_conversion_is_named(tmp_path):
    with pytest.raises(weights.Missing, match="launch.convert clip --source"):
        clip_score.load(tmp_path)


def npz(path, images):
    np.savez(path, arr_0=images)
    return path


def test_the_command_says_the_score_and_its_protocol(command, folder, tmp_path):
    """The whole way from a public folder."""
    public = clip_files.write(tmp_path / "public")
    about = (f"--weights_dir={tmp_path / 'w'}", "--licence=MIT", "--url=https://x.org")
    command("convert", "clip", f"--source={public / 'model.safetensors'}", *about)
    lines = tmp_path / "captions.txt"
    lines.write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    samples = npz(tmp_path / "samples.npz", IMAGES)
    given = (
        f"--npz={samples}",
        f"--captions={lines}",
        f"--weights_dir={tmp_path / 'w'}",
    )
    out = command("clip_score", *given)
    found = json.loads(out[out.index("{") : out.rindex("}") + 1])
    want = score(clip_score.load(folder))
    for name, value in want.record().items():
        np.testing.assert_allclose(found.pop(name), value, rtol=1e-5, err_msg=name)
    entries = json.loads((tmp_path / "w" / "manifest.json").read_text())
    protocol = found.pop("protocol")
    assert not found and protocol.pop("count") == COUNT
    assert protocol.pop("sha256") == entries["clip.safetensors"]["sha256"]
    assert protocol.pop("tokenizer_sha256") == entries["clip_tokenizer.json"]["sha256"]
    assert protocol.pop("source") == "https://x.org" and protocol.pop("context") == 12
    assert protocol.pop("resize").startswith("PIL's bicubic of 8 bits")
    assert protocol.pop("model") == (
        "image 3 x 32, patch 8, 24x24; text 2 x 24; 16 dimensions"
    )
    assert protocol.keys() == {"clip_score", "clipscore"}


def test_captions_are_lines_and_none_is_empty(tmp_path):
    lines = tmp_path / "captions.txt"
    lines.write_text("a cat\nno end of line, a \u2028 in it", encoding="utf-8")
    assert clip_score.read(lines, 2) == ["a cat", "no end of line, a \u2028 in it"]
    with pytest.raises(DataError, match="captions.txt has 2 lines for 3 images"):
        clip_score.read(lines, 3)
    lines.write_bytes(b"one\r\n \r\ntwo\r\n")
    with pytest.raises(DataError, match="line 2 of .* is empty"):
        clip_score.read(lines, 2)
    for content in (b"\xff\xfe", None):
        lines.write_bytes(content) if content else lines.unlink()
        with pytest.raises(DataError, match="captions.txt cannot be read"):
            clip_score.read(lines, 2)


def test_samples_are_read_in_parts(tmp_path):
    plain, packed = tmp_path / "a.npz", tmp_path / "b.npz"
    with samples_npz.writing(str(plain), COUNT, IMAGES.shape[1:]) as out:
        out.add(IMAGES[:4], np.zeros(4))
        out.add(IMAGES[4:], np.zeros(COUNT - 4))
    np.savez_compressed(packed, arr_0=IMAGES)
    for path in (plain, packed):
        reader = samples_npz.Reader(str(path))
        parts = list(reader.parts(4))
        assert reader.shape == IMAGES.shape and [len(p) for p in parts] == [4, 3]
        np.testing.assert_array_equal(np.concatenate(parts), IMAGES)


def test_archives_that_are_no_samples_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for found, said in (
        (IMAGES.astype(np.float32), "float32 .*not uint8"),
        (IMAGES[0], r"\(30, 40, 3\), not uint8"),
        (np.asfortranarray(IMAGES), "not uint8"),
    ):
        np.savez(path, arr_0=found)
        with pytest.raises(DataError, match=said):
            samples_npz.Reader(str(path))
    np.savez(path, other=IMAGES)
    with pytest.raises(DataError, match="arr_0"):
        samples_npz.Reader(str(path))
    for content in (b"", b"PK\x03\x04 no zip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.npz"):
            samples_npz.Reader(str(path))
    with pytest.raises(DataError, match="absent.npz"):
        samples_npz.Reader(str(tmp_path / "absent.npz"))


def test_a_damaged_part_is_an_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.npz is damaged"):
        list(samples_npz.Reader(str(path)).parts(4))
    short = np.lib.format.header_data_from_array_1_0(IMAGES)
    with zipfile.ZipFile(path, "w") as zipped, zipped.open("arr_0.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, short)
        member.write(IMAGES.tobytes()[:-1])
    with pytest.raises(DataError, match="a.npz"):
        list(samples_npz.Reader(str(path)).parts(4))
