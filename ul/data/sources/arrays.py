"""Images in NumPy files."""

import zipfile

import numpy as np

from ul.core.errors import DataError
from ul.data.sources.base import FunctionSource, Shape


def make_source(
    split: str, shape: Shape, *, path: str, eval_path: str
) -> FunctionSource:
    """Return the uint8 images of one file per split.

    A .npy file holds images alone; a .npz file holds `image` and perhaps `label`.

    Raises:
      DataError: the file cannot be read or holds something else.
    """
    image, label = _load(path if split == "train" else eval_path)

    def get_example(i):
        return {"image": np.asarray(image[i]), "label": int(label[i])}

    return FunctionSource(len(image), get_example, num_classes=int(label.max()) + 1)


def _load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [N, H, W, C], and labels, [N], of a .npy or .npz file."""
    try:
        data = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"{path} cannot be read as a .npy or .npz file: {e}") from e
    if isinstance(data, np.lib.npyio.NpzFile):
        if "image" not in data:
            raise DataError(
                f"{path} must have an array named 'image'; found {sorted(data)}."
            )
        image = data["image"]
        label = data["label"] if "label" in data else np.zeros(len(image), np.int32)
    else:
        image, label = data, np.zeros(len(data), np.int32)
    image = image[..., None] if image.ndim == 3 else image
    if image.dtype != np.uint8 or image.ndim != 4 or len(label) != len(image):
        raise DataError(
            f"{path} must hold images of type uint8 and shape [N, H, W, C] and N labels; "
            f"got {image.dtype}{list(image.shape)} and {len(label)} labels."
        )
    if not len(image):
        raise DataError(f"{path} must hold at least one image; it holds none.")
    if label.min() < 0:
        raise DataError(f"The labels in {path} must be 0 or more; got {label.min()}.")
    return image, label
