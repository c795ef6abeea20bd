"""A small TFDS data set, built here as array_record and read without TensorFlow."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ul.core.errors import DataError
from ul.data.sources import basic

SHAPE = (16, 16, 3)


class Colours(tfds.core.GeneratorBasedBuilder):
    """Flat images whose colour is their index."""

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
    where = tmp_path_factory.mktemp("tfds")
    Colours(data_dir=where, file_format="array_record").download_and_prepare()
    return str(where)


def read(data_dir, split, **changes):
    settings = dict(
        name="colours", data_dir=data_dir, train_split="train[:50%]", eval_split="test"
    )
    return basic.tfds(split, SHAPE, **settings | changes)


def test_images_and_labels_come_back(data_dir):
    train, held_out = read(data_dir, "train"), read(data_dir, "eval")
    assert (len(train), len(held_out)) == (10, 4)
    item = train[3]
    assert item["image"].shape == SHAPE and item["image"].dtype == np.uint8
    assert item["image"][0, 0, 0] // 10 % 5 == item["label"]
    assert "tensorflow" not in sys.modules


def test_what_is_not_there_is_a_data_error(data_dir):
    with pytest.raises(DataError, match="'nothing_of_the_kind'"):
        read(data_dir, "train", name="nothing_of_the_kind")
    with pytest.raises(DataError, match="'half'"):
        read(data_dir, "train", train_split="half")
