"""Datasets of TensorFlow Datasets, read without TensorFlow."""

import numpy as np
from PIL import Image

from ul.core.errors import DataError
from ul.data.sources.base import FunctionSource, Shape, resize_and_center_crop


def make_source(
    split: str,
    shape: Shape,
    *,
    name: str,
    data_dir: str = "~/tensorflow_datasets",
    train_split: str = "train",
    eval_split: str = "validation",
) -> FunctionSource:
    """Return a prepared TFDS dataset with the feature `image` and perhaps `label`.

    `tfds.data_source` reads its ArrayRecord files; TensorFlow is not needed. Without the
    feature `label` all labels are 0.

    Raises:
      DataError: TFDS cannot read the dataset.
    """
    import tensorflow_datasets

    tfds_split = train_split if split == "train" else eval_split
    try:
        data = tensorflow_datasets.data_source(
            name, split=tfds_split, data_dir=data_dir, download=False
        )
    except Exception as e:  # TFDS raises many classes; all mean that it cannot be read.
        raise DataError(
            f"The TFDS data set {name!r}, split {tfds_split!r}, must have been prepared as "
            f"array_record in {data_dir}; reading it failed: {str(e).splitlines()[0]}"
        ) from e

    def get_example(i):
        example = data[i]
        image = np.asarray(example["image"])
        image = image[..., 0] if image.shape[-1] == 1 else image
        return {
            "image": resize_and_center_crop(Image.fromarray(image), shape),
            "label": int(example.get("label", 0)),
        }

    features = data.dataset_info.features
    label = features["label"] if "label" in features else None
    return FunctionSource(len(data), get_example, getattr(label, "num_classes", 1))
