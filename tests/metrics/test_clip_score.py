"""The CLIP score of a small random CLIP, and the command that prints it."""

import dataclasses
import json
import zipfile

import jax
import numpy as np
import pytest

from tests.lib import clip_files, torch_states
from tests.lib.breaks import Break
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.evaluation import samples_npz
from ul.metrics import clip_score
from ul.metrics.clip_score import ClipScore
from ul.metrics.features import weights

COUNT = 7
IMAGES = torch_states.make_images(1, COUNT, 30, 40, 3)
IMAGES[1::2] = 255 - IMAGES[1::2]  # so that the images differ
CAPTIONS = tuple(f"a cat {n} and dog {n * n}" for n in range(COUNT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip_files.write_converted_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def network(folder):
    return clip_score.load_network(folder)


def score_all(network, *cuts, devices=1):
    """Return the score of all pairs, added in chunks that begin at `cuts`."""
    score = ClipScore(network, meshes.make(devices=jax.devices()[:devices]))
    for rows in np.split(np.arange(COUNT), cuts):
        score.add(IMAGES[rows], [CAPTIONS[i] for i in rows])
    return score


def test_both_scores_by_hand():
    """Embeddings of any length with cosines 1, 0.6, 0 and -1."""
    image = np.array([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    text = np.array([[7.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(
        clip_score.cosine_similarity(image, text), [1, 0.6, 0, -1]
    )
    np.testing.assert_allclose(clip_score.clip_score(image, text), 15.0)
    np.testing.assert_allclose(clip_score.clipscore(image, text), 1.0)


def test_both_scores_and_their_errors_follow_from_the_embeddings(network):
    # With these weights some cosines are negative, some positive.
    params = clip_files.random_parameters(seed=8)
    score = score_all(dataclasses.replace(network, params=params))
    image = score.embed_images(IMAGES)
    text = score.embed_captions(CAPTIONS)
    prefixed = score.embed_captions([f"A photo depicts {c}" for c in CAPTIONS])
    np.testing.assert_allclose(score.value(), clip_score.clip_score(image, text))
    record = score.record()
    assert record["clip_score"] == score.value()
    expected = clip_score.clipscore(image, prefixed)
    np.testing.assert_allclose(record["clipscore"], expected)
    cosine = clip_score.cosine_similarity(image, text)
    assert np.std(cosine) > 0.01 and min(cosine) < -0.01 and max(cosine) > 0.01
    sem = 100 * np.std(cosine, ddof=1) / np.sqrt(COUNT)
    np.testing.assert_allclose(record["clip_score_sem"], sem)
    floored = 2.5 * np.maximum(clip_score.cosine_similarity(image, prefixed), 0)
    sem = np.std(floored, ddof=1) / np.sqrt(COUNT)
    np.testing.assert_allclose(record["clipscore_sem"], sem)


def test_the_score_depends_neither_on_the_chunks_nor_on_the_devices(network):
    expected = score_all(network).record()
    score = score_all(network, 4, 4, devices=2)
    assert score.count == COUNT
    for name, value in score.record().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_gray_images_are_scored(network):
    gray, rgb = score_all(network, COUNT), score_all(network, COUNT)
    gray.add(IMAGES[..., :1], CAPTIONS)
    rgb.add(np.repeat(IMAGES[..., :1], 3, axis=-1), CAPTIONS)
    assert gray.record() == rgb.record()


def test_invalid_pairs_are_refused(network):
    score = ClipScore(network, meshes.make())
    with pytest.raises(DataError, match="3 images and 2 captions"):
        score.add(IMAGES[:3], CAPTIONS[:2])
    score.add(IMAGES[:1], CAPTIONS[:1])
    with pytest.raises(DataError, match="at least 2 pairs; got 1"):
        score.value()
    cls = {**network.params, "image.cls": np.full(32, np.nan, np.float32)}
    broken = ClipScore(dataclasses.replace(network, params=cls), meshes.make())
    with pytest.raises(DataError, match="must be finite.* begins at pair 0 "):
        broken.add(IMAGES[:1], CAPTIONS[:1])


def test_the_error_for_missing_weights_states_the_conversion(tmp_path):
    with pytest.raises(weights.MissingWeights, match="ul convert clip --source"):
        clip_score.load_network(tmp_path)


def test_the_command_prints_the_score_and_its_protocol(command, folder, tmp_path):
    """From a public folder to the score."""
    public = clip_files.write_public_folder(tmp_path / "public")
    command(
        "convert",
        "clip",
        f"--source={public / 'model.safetensors'}",
        f"--weights_dir={tmp_path / 'w'}",
        "--license=MIT",
        "--url=https://x.org",
    )
    captions, samples = tmp_path / "captions.txt", tmp_path / "samples.npz"
    captions.write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    np.savez(samples, arr_0=IMAGES)
    out = command(
        "clip_score",
        f"--npz={samples}",
        f"--captions={captions}",
        f"--weights_dir={tmp_path / 'w'}",
    )
    record = json.loads(out[out.index("{") : out.rindex("}") + 1])
    expected = score_all(clip_score.load_network(folder)).record()
    for name, value in expected.items():
        np.testing.assert_allclose(record.pop(name), value, rtol=1e-5, err_msg=name)
    entries = json.loads((tmp_path / "w" / "manifest.json").read_text())
    protocol = record.pop("protocol")
    assert not record and protocol.pop("count") == COUNT
    assert protocol.pop("sha256") == entries["clip.safetensors"]["sha256"]
    assert protocol.pop("tokenizer_sha256") == entries["clip_tokenizer.json"]["sha256"]
    assert protocol.pop("source") == "https://x.org" and protocol.pop("context") == 12
    assert protocol.pop("resize").startswith("PIL's bicubic of 8 bits")
    assert protocol.pop("model") == (
        "image 3 x 32, patch 8, 24x24; text 2 x 24; 16 dimensions"
    )
    assert protocol.keys() == {"clip_score", "clipscore"}


def test_every_line_is_a_caption(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a cat\nno end of line, a \u2028 in it", encoding="utf-8")
    captions = ["a cat", "no end of line, a \u2028 in it"]
    assert clip_score.read_captions(path, 2) == captions
    with pytest.raises(DataError, match="captions.txt .* has 2 lines for 3 images"):
        clip_score.read_captions(path, 3)
    path.write_bytes(b"one\r\n \r\ntwo\r\n")
    with pytest.raises(DataError, match="captions.txt .* line 2 is empty"):
        clip_score.read_captions(path, 2)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="captions.txt must be text in UTF-8; line 1"):
        clip_score.read_captions(path, 2)
    path.unlink()
    with pytest.raises(DataError, match="captions.txt cannot be read"):
        clip_score.read_captions(path, 2)


def test_samples_are_read_in_chunks(tmp_path):
    stored, compressed = tmp_path / "a.npz", tmp_path / "b.npz"
    with samples_npz.open_writer(str(stored), COUNT, IMAGES.shape[1:]) as writer:
        writer.add(IMAGES[:4], np.zeros(4))
        writer.add(IMAGES[4:], np.zeros(COUNT - 4))
    np.savez_compressed(compressed, arr_0=IMAGES)
    for path in (stored, compressed):
        reader = samples_npz.SamplesReader(str(path))
        chunks = list(reader.batches(4))
        assert reader.shape == IMAGES.shape and [len(c) for c in chunks] == [4, 3]
        np.testing.assert_array_equal(np.concatenate(chunks), IMAGES)


def test_files_without_samples_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for array, message in (
        (IMAGES.astype(np.float32), "must be uint8 .*; got float32"),
        (IMAGES[0], r"got uint8 \[30, 40, 3\]"),
        (np.asfortranarray(IMAGES), "got uint8 .* in Fortran order"),
    ):
        np.savez(path, arr_0=array)
        with pytest.raises(DataError, match=message):
            samples_npz.SamplesReader(str(path))
    np.savez(path, other=IMAGES)
    with pytest.raises(DataError, match="arr_0"):
        samples_npz.SamplesReader(str(path))
    for content in (b"", b"PK\x03\x04 no zip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.npz"):
            samples_npz.SamplesReader(str(path))
    with pytest.raises(DataError, match="absent.npz"):
        samples_npz.SamplesReader(str(tmp_path / "absent.npz"))


def test_damaged_samples_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.npz is damaged"):
        list(samples_npz.SamplesReader(str(path)).batches(4))
    header = np.lib.format.header_data_from_array_1_0(IMAGES)
    with zipfile.ZipFile(path, "w") as zipped, zipped.open("arr_0.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(IMAGES.tobytes()[:-1])
    with pytest.raises(DataError, match="a.npz"):
        list(samples_npz.SamplesReader(str(path)).batches(4))


BREAKS = (
    Break(
        "a standard deviation for the standard error of a CLIP score",
        "ul/metrics/clip_score.py",
        "np.diagonal(covariance) / self.count",
        "np.diagonal(covariance)",
        "test_both_scores_and_their_errors_follow_from_the_embeddings",
    ),
)
