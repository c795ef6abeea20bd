"""Images in NumPy files."""

import collections
import logging
import os
import zipfile

import numpy as np

from ul.core.errors import DataError
from ul.core.files import numpy_reason
from ul.data.sources.base import FunctionSource, Shape, SourceReport

log = logging.getLogger("ul")

# Arrays of these names hold labels, but a file must call them `label`.
OTHER_LABEL_NAMES = ("labels", "class", "classes", "cls", "target", "targets", "y")


def make_source(
    split: str, shape: Shape, *, path: str, eval_path: str
) -> FunctionSource:
    """Return the uint8 images of one file per split.

    A .npy file holds images alone; a .npz file holds `image` and perhaps `label`, one whole
    number of at least 0 for each image.

    Raises:
      DataError: the file cannot be read or holds something else.
    """
    own = path if split == "train" else eval_path
    if not own:
        raise DataError(
            "data.source.path and data.source.eval_path must be .npy or .npz files; one of "
            "them is empty."
        )
    if os.path.realpath(path) == os.path.realpath(eval_path):
        log.warning("training and held-out images are the same file: %s", path)
    image, label = _load(own)

    def get_example(i):
        return {"image": np.asarray(image[i]), "label": int(label[i])}

    counts = collections.Counter(label.tolist())
    num_classes = max(counts) + 1
    report = SourceReport(
        classes={str(number): counts[number] for number in range(num_classes)},
        digest=f"{os.path.getsize(own)} bytes",
    )
    return FunctionSource(len(image), get_example, num_classes, report)


def _load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [N, H, W, C], and labels, [N], of a .npy or .npz file."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path} must be a .npy or .npz file; it is no regular file.")
    try:
        data = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(data, np.lib.npyio.NpzFile):
            with data:
                image, label = _read_archive(path, data)
        else:
            image, label = data, None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise DataError(
            f"{path} cannot be read as a .npy or .npz file: {numpy_reason(e)}"
        ) from e
    image = image[..., None] if image.ndim == 3 else image
    if image.dtype != np.uint8 or image.ndim != 4:
        raise DataError(
            f"{path} must hold images of type uint8 and shape [N, H, W, C]; got "
            f"{image.dtype}{list(image.shape)}."
        )
    if not len(image):
        raise DataError(f"{path} must hold at least one image; it holds none.")
    if label is None:
        label = np.zeros(len(image), np.int32)
    if label.shape != (len(image),) or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"The labels in {path} must be whole numbers of shape [{len(image)}], one for "
            f"each image; got {label.dtype}{list(label.shape)}."
        )
    if label.min() < 0:
        raise DataError(f"The labels in {path} must be 0 or more; got {label.min()}.")
    return image, label


def _read_archive(path: str, data) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images and the labels, or None for no labels, of a .npz file."""
    others = sorted(set(data) - {"image", "label"})
    if "image" not in data:
        raise DataError(
            f"{path} must have an array named 'image'; found {others}. Rename the array."
        )
    if "label" in data:
        return data["image"], data["label"]
    if named := [name for name in others if name.lower() in OTHER_LABEL_NAMES]:
        raise DataError(
            f"The labels in {path} must be an array named 'label'; found {named[0]!r}. "
            "Rename or remove the array."
        )
    if others:
        log.warning("%s: ignored the arrays %s", path, ", ".join(others))
    return data["image"], None
