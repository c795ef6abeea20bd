"""Datasets of TensorFlow Datasets, read without TensorFlow."""

import hashlib
import io
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
      DataError: TFDS cannot read the dataset; or, on reading, an image cannot be decoded,
        has other than 8 bits, or has no label.
    """
    tfds_split = train_split if split == "train" else eval_split
    try:
        data = _open_split(name, tfds_split, data_dir)
    except Exception as e:  # TFDS raises many classes; all mean that it cannot be read.
        raise DataError(
            f"The TFDS data set {name!r}, split {tfds_split!r}, must have been prepared as "
            f"array_record in {data_dir}; reading it failed: {str(e).splitlines()[0]}"
        ) from e

    def get_example(i):
        example = data[i]
        try:
            image = _to_image(example["image"], shape[-1])
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


def _open_split(name: str, tfds_split: str, data_dir: str) -> Any:
    """Return a prepared split whose images are as they are stored, encoded.

    TFDS would take any format, ignore the orientation, and use OpenCV if it is installed,
    which decodes to other pixels.
    """
    import tensorflow_datasets as tfds

    options = dict(split=tfds_split, data_dir=data_dir, download=False)
    data = tfds.data_source(name, **options)
    features = data.dataset_info.features
    if "image" in features and isinstance(features["image"], tfds.features.Image):
        decoders = {"image": tfds.decode.SkipDecoding()}
        data = tfds.data_source(name, **options, decoders=decoders)
    return data


def _to_image(image: bytes | np.ndarray, channels: int) -> Image.Image:
    """Return an encoded image, or a decoded one [H, W, C], as RGB or gray.

    Raises:
      ValueError: it cannot be decoded, or its type is not uint8.
    """
    if isinstance(image, bytes):
        return image_files.read_image(io.BytesIO(image), channels)
    image = np.asarray(image)
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
