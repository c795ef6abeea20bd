"""The photographs that ship with scikit-learn and scikit-image."""

import functools

import numpy as np
from PIL import Image

from ul.core import extras
from ul.core.errors import ConfigError
from ul.data.sources.base import FunctionSource, Shape

TRAIN_PHOTOS = (
    "astronaut",
    "chelsea",
    "china",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
    "stereo_motorcycle",
)
EXTRA = ("The data source 'photos'", "demo", "scikit-image scikit-learn")
HELD_OUT_PHOTOS = ("coffee", "flower")


@functools.cache
def load_photo(name: str, reduce: int) -> np.ndarray:
    """Return one photograph, uint8 [H, W, 3].

    Each pixel is the mean of a square of `reduce` by `reduce` original pixels, so that a
    small crop shows more of the photograph.
    """
    if name in ("china", "flower"):
        datasets = extras.require("sklearn.datasets", *EXTRA)
        image = datasets.load_sample_image(f"{name}.jpg")
    else:
        image = getattr(extras.require("skimage.data", *EXTRA), name)()
        image = image[0] if isinstance(image, tuple) else image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(reduce))


def make_source(
    split: str, shape: Shape, *, reduce: int = 2, crops: int = 4096
) -> FunctionSource:
    """Return each of eight photographs `crops` times, for random crops; two are held out.

    The label is the number of the photograph. Held-out photographs belong to none of these
    classes and have the label 8.
    """
    if reduce < 1 or crops < 1:
        raise ConfigError(
            "data.source.reduce and data.source.crops must be at least 1; got "
            f"{reduce} and {crops}."
        )
    names = TRAIN_PHOTOS if split == "train" else HELD_OUT_PHOTOS
    photos = [load_photo(name, reduce) for name in names]
    null_label = len(TRAIN_PHOTOS)

    def get_example(i):
        index = i % len(photos)
        label = index if split == "train" else null_label
        return {"image": photos[index], "label": label}

    return FunctionSource(crops * len(photos), get_example, num_classes=null_label)
