"""Datasets of TensorFlow Datasets, read without TensorFlow."""

import hashlib
import operator
from typing import Any

import numpy as np
from PIL import Image

from ul.core.errors import DataError
from ul.data import image_files
from ul.data.sources.base import (
    FunctionSource,
    Shape,
    SourceReport,
    resize_and_center_crop,
)


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
      DataError: TFDS cannot read the dataset; or, on reading, an image is not of type
        uint8 or has no label.
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
        try:
            image = _to_image(np.asarray(example["image"]), shape[-1])
            label = _to_label(example.get("label", 0))
        except ValueError as e:
            raise DataError(
                f"Example {i} of the TFDS data set {name!r}, split {tfds_split!r}, cannot be "
                f"used: {e}. Choose another split or dataset."
            ) from e
        return {"image": resize_and_center_crop(image, shape), "label": label}

    info = data.dataset_info
    label = info.features["label"] if "label" in info.features else None
    names = getattr(label, "names", None) or ["image"]
    identity = f"{getattr(info, 'full_name', name)} {tfds_split} {len(data)}"
    return FunctionSource(
        len(data),
        get_example,
        getattr(label, "num_classes", None) or 1,
        SourceReport(
            classes=dict.fromkeys(names) if label else {"image": len(data)},
            digest=hashlib.sha256(identity.encode()).hexdigest()[:16],
        ),
    )


def _to_image(image: np.ndarray, channels: int) -> Image.Image:
    """Return a decoded image [H, W, C] as RGB or gray.

    Raises:
      ValueError: its type is not uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"its image must be of type uint8; it is {image.dtype}")
    image = image[..., 0] if image.shape[-1] == 1 else image
    return image_files.convert(Image.fromarray(image), channels)


def _to_label(label: Any) -> int:
    """Return a label as an int.

    Raises:
      ValueError: it is not a whole number of at least 0; TFDS marks missing labels by -1.
    """
    try:
        number = operator.index(label)
    except TypeError as e:
        raise ValueError(f"its label must be a whole number; got {label!r}") from e
    if number < 0:
        raise ValueError(f"its label is {number}, which stands for a missing label")
    return number
