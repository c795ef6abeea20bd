"""A small TFDS dataset, built here as array_record and read without TensorFlow."""

import io
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.importing.test_generated_images import check
from tests.lib.generated_images import SIDE, generate
from ul.core.errors import DataError
from ul.data.sources import tfds as tfds_source

SHAPE = (16, 16, 3)


class Colors(tfds.core.GeneratorBasedBuilder):
    """Flat images whose color shows their index."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(num_classes=5),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(20),
            "test": self._generate_examples(4),
        }

    def _generate_examples(self, n=0):
        for i in range(n):
            image = Image.new("RGB", (18, 24), (10 * i, 3, 5))
            yield i, {"image": image, "label": i % 5}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    Colors(data_dir=directory, file_format="array_record").download_and_prepare()
    return str(directory)


class Odd(tfds.core.GeneratorBasedBuilder):
    """Files of every kind that the world has, as they are."""

    VERSION = tfds.core.Version("1.0.0")
    FILES = generate(500, seed=3)

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, file in enumerate(self.FILES):
            yield i, {"image": io.BytesIO(file.content)}


def test_each_image_is_read_or_rejected_as_in_a_folder(tmp_path):
    Odd(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = tfds_source.make_source(
        "train", (SIDE, SIDE, 3), name="odd", data_dir=str(tmp_path)
    )
    # TFDS shuffles; the bytes say which file an example is.
    stored = tfds.data_source(
        "odd",
        split="train",
        data_dir=tmp_path,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    by_content = {file.content: file for file in Odd.FILES}
    assert len(source) == len(Odd.FILES)
    for i, example in enumerate(stored):
        try:
            pixels = source[i]["image"]
        except DataError as e:
            assert f"Example {i} of" in str(e)
            pixels = None
        check(by_content[example["image"]], pixels)


def make_source(data_dir, split, **changes):
    settings = dict(
        name="colors", data_dir=data_dir, train_split="train[:50%]", eval_split="test"
    )
    return tfds_source.make_source(split, SHAPE, **settings | changes)


def test_images_and_labels_come_back(data_dir):
    train, held_out = make_source(data_dir, "train"), make_source(data_dir, "eval")
    assert (len(train), len(held_out)) == (10, 4)
    example = train[3]
    assert example["image"].shape == SHAPE and example["image"].dtype == np.uint8
    assert example["image"][0, 0, 0] // 10 % 5 == example["label"]
    assert "tensorflow" not in sys.modules


def test_missing_data_sets_and_splits_are_data_errors(data_dir):
    with pytest.raises(DataError, match="'nothing_of_the_kind'"):
        make_source(data_dir, "train", name="nothing_of_the_kind")
    with pytest.raises(DataError, match="'half'"):
        make_source(data_dir, "train", train_split="half")


def fake(monkeypatch, **example):
    """A prepared dataset of one example, without features."""

    class Data(list):
        dataset_info = types.SimpleNamespace(features={})

    monkeypatch.setattr(tfds, "data_source", lambda *args, **kwargs: Data([example]))
    return tfds_source.make_source("train", SHAPE, name="x")


def test_images_of_other_types_and_missing_labels_are_refused(monkeypatch):
    image = np.full((24, 24, 3), 9, np.uint8)
    for dtype in (np.uint16, np.float32):
        with pytest.raises(
            DataError, match=f"must be of type uint8; it is {np.dtype(dtype)}"
        ):
            fake(monkeypatch, image=image[..., :1].astype(dtype))[0]
    with pytest.raises(
        DataError, match="label is -1, which stands for a missing label"
    ):
        fake(monkeypatch, image=image, label=-1)[0]
    with pytest.raises(DataError, match="whole number; got 1.5"):
        fake(monkeypatch, image=image, label=1.5)[0]
    assert fake(monkeypatch, image=image, label=np.int64(3))[0]["label"] == 3


def test_transparent_images_are_shown_on_white(monkeypatch):
    image = np.zeros((24, 24, 4), np.uint8)
    assert (fake(monkeypatch, image=image)[0]["image"] == 255).all()
