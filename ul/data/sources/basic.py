"""Where images come from: random access by index, no TensorFlow.

A source has `len`, and item i is {"image": uint8 [H, W, C], "label": int}, where a clip is an
image [T, H, W, C]. Images may be larger than wanted: `transforms.crop` cuts them. `split` is
"train" or "eval"; what is held out never changes.
"""

import functools
import logging
import os
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image
from scipy import fft

from ul.core.errors import ConfigError, DataError
from ul.core.files import is_hidden

log = logging.getLogger("ul")

Example = dict[str, Any]
Shape = tuple[int, ...]  # [H, W, C], or of clips [T, H, W, C]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Items:
    """A source of `length` examples made by `get(i)`, with labels below `num_classes`."""

    def __init__(self, length: int, get: Callable[[int], Example], num_classes: int):
        self._length, self._get, self.num_classes = length, get, num_classes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i) -> Example:
        return self._get(int(i))


def digits(split: str, shape: Shape) -> Items:
    """scikit-learn's 1,797 real handwritten digits, 8x8 grey, 10 classes.

    One fifth of every class is held out, always the same.
    """
    from sklearn import datasets, model_selection

    data = datasets.load_digits()
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    train, held_out = model_selection.train_test_split(
        np.arange(len(images)), test_size=0.2, random_state=0, stratify=data.target
    )
    chosen = np.sort(train if split == "train" else held_out)
    return Items(
        len(chosen),
        lambda i: {"image": images[chosen[i]], "label": int(data.target[chosen[i]])},
        num_classes=10,
    )


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
HELD_OUT_PHOTOS = ("coffee", "flower")


@functools.cache
def photograph(name: str, reduce: int) -> np.ndarray:
    """One photograph of the scikit-learn and scikit-image wheels, RGB uint8.

    `reduce` averages squares of as many pixels, so that a small crop shows more.
    """
    if name in ("china", "flower"):
        from sklearn import datasets

        image = datasets.load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        image = getattr(skimage.data, name)()
        image = image[0] if isinstance(image, tuple) else image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(reduce))


def photos(split: str, shape: Shape, *, reduce: int, crops: int) -> Items:
    """`crops` random crops of each of eight real photographs; two more are held out.

    The label is the photograph; a held-out one has the null label.
    """
    if reduce < 1 or crops < 1:
        raise ConfigError(
            f"data.source.reduce {reduce} and crops {crops} must be at least 1"
        )
    names = TRAIN_PHOTOS if split == "train" else HELD_OUT_PHOTOS
    images = [photograph(name, reduce) for name in names]
    null = len(TRAIN_PHOTOS)

    def get(i):
        which = i % len(images)
        label = which if split == "train" else null
        return {"image": images[which], "label": label}

    return Items(crops * len(images), get, num_classes=null)


def fit(image: Image.Image, shape: Shape) -> np.ndarray:
    """Resize the shorter sides to cover, crop the centre: uint8 of `shape`."""
    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    scale = max(height / image.height, width / image.width)
    size = (
        max(width, round(image.width * scale)),
        max(height, round(image.height * scale)),
    )
    if size != image.size:
        image = image.resize(
            size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BICUBIC
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    array = np.asarray(image.crop((left, top, left + width, top + height)))
    return array.reshape(shape)


class Tolerant:
    """Skips what cannot be read: item i is then the next one that can.

    Each broken file is named once and counted; more than `max_bad_fraction` of all
    raise. The substitute depends on the index alone, so runs stay equal.
    """

    def __init__(
        self,
        names: Sequence[str],
        get: Callable[[int], Example],
        max_bad_fraction: float,
        num_classes: int,
    ):
        self.num_classes = num_classes
        self._names, self._get, self._limit = names, get, max_bad_fraction * len(names)
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i) -> Example:
        for j in range(int(i), int(i) + len(self)):
            j %= len(self)
            try:
                return self._get(j)
            except (
                OSError,
                ValueError,
                SyntaxError,
                Image.DecompressionBombError,
            ) as e:
                self._count(j, e)
        raise DataError("no file can be read as an image")

    def _count(self, j: int, error: Exception) -> None:
        with self._lock:
            if j in self._bad:
                return
            self._bad.add(j)
            count = len(self._bad)
        log.warning("skipped broken image %d: %s (%s)", count, self._names[j], error)
        if count > self._limit:
            raise DataError(
                f"{count} of {len(self)} images are broken, the last {self._names[j]}; "
                "mend or remove them, or raise data.source.max_bad_fraction"
            ) from error


def folder(
    split: str, shape: Shape, *, path: str, holdout: float, max_bad_fraction: float
) -> Tolerant:
    """A directory of images, class = subfolder in alphabetical order.

    A share `holdout` of the files, chosen by a hash of their relative path, is held
    out: adding files moves none of the others.
    """
    root = epath.Path(path)
    if not root.is_dir():
        raise DataError(f"data.source.path {path} is not a directory")
    files = [
        str(epath.Path(where) / name)
        for where, _, names in sorted(os.walk(root))
        for name in sorted(names)
        if name.lower().endswith(SUFFIXES)
    ]
    files = [f for f in files if not is_hidden(os.path.relpath(f, root))]
    relative = [os.path.relpath(f, root) for f in files]
    classes = sorted({r.split(os.sep)[0] for r in relative if os.sep in r})
    loose = [r for r in relative if os.sep not in r]
    if classes and loose:
        raise DataError(
            f"data.source.path {path}: {loose[0]} lies beside the class folders, and so do "
            f"{len(loose) - 1} more; move them into one, or away"
        )
    held_out = [zlib.crc32(r.encode()) / 2**32 < holdout for r in relative]
    chosen = [i for i, h in enumerate(held_out) if h == (split == "eval")]
    if not chosen:
        raise DataError(
            f"data.source.path {path} has {len(files)} images "
            f"({', '.join(SUFFIXES)}), none of them in the {split} split at holdout {holdout}"
        )

    def get(i):
        file, name = files[chosen[i]], relative[chosen[i]]
        label = classes.index(name.split(os.sep)[0]) if os.sep in name else 0
        with warnings.catch_warnings():
            # Pillow's remarks on odd metadata are not about pixels.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return {"image": fit(image, shape), "label": label}

    names = [files[i] for i in chosen]
    return Tolerant(names, get, max_bad_fraction, max(len(classes), 1))


def tfds(
    split: str,
    shape: Shape,
    *,
    name: str,
    data_dir: str,
    train_split: str,
    eval_split: str,
) -> Items:
    """Any prepared TFDS image data set with `image` and, if there is one, `label`.

    Reads ArrayRecord files through `tfds.data_source`: no TensorFlow.
    """
    import tensorflow_datasets

    wanted = train_split if split == "train" else eval_split
    try:
        source = tensorflow_datasets.data_source(
            name, split=wanted, data_dir=data_dir, download=False
        )
    except Exception as e:  # TFDS raises many kinds; all mean: not readable here.
        raise DataError(
            f"TFDS data set {name!r}, split {wanted!r}, under {data_dir}: "
            f"{str(e).splitlines()[0]}; prepare it there as array_record"
        ) from e

    def get(i):
        example = source[i]
        image = np.asarray(example["image"])
        image = image[..., 0] if image.shape[-1] == 1 else image
        return {
            "image": fit(Image.fromarray(image), shape),
            "label": int(example.get("label", 0)),
        }

    features = source.dataset_info.features
    label = features["label"] if "label" in features else None
    return Items(len(source), get, getattr(label, "num_classes", 1))


def _load_arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [N, H, W, C] and labels [N] of a .npy or .npz file."""
    try:
        data = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"{path} cannot be read as .npy or .npz: {e}") from e
    if isinstance(data, np.lib.npyio.NpzFile):
        if "image" not in data:
            raise DataError(f"{path} has {sorted(data)}, but no array named 'image'")
        image = data["image"]
        label = data["label"] if "label" in data else np.zeros(len(image), np.int32)
    else:
        image, label = data, np.zeros(len(data), np.int32)
    image = image[..., None] if image.ndim == 3 else image
    if image.dtype != np.uint8 or image.ndim != 4 or len(label) != len(image):
        raise DataError(
            f"{path}: image is {image.dtype}{list(image.shape)} with {len(label)} labels; "
            "wanted are uint8 [N, H, W, C] and as many labels"
        )
    if not len(image) or label.min() < 0:
        raise DataError(f"{path} holds no images, or labels below 0")
    return image, label


def arrays(split: str, shape: Shape, *, path: str, eval_path: str) -> Items:
    """uint8 images of one .npy (images alone) or .npz (`image`, `label`) per split."""
    image, label = _load_arrays(path if split == "train" else eval_path)
    return Items(
        len(image),
        lambda i: {"image": np.asarray(image[i]), "label": int(label[i])},
        num_classes=int(label.max()) + 1,
    )


def gaussian_variances(shape: Shape, exponent: float, std: float) -> np.ndarray:
    """Variances [H, W, C] of the `gaussian` source's directions, in -1..1 units.

    The directions are the orthonormal cosine transform's, of each channel by itself;
    the variance falls as (1 + |frequency|^2)^(-exponent / 2), a photograph's at 2; its
    mean is std^2.
    """
    height, width, channels = shape
    square = np.arange(height)[:, None] ** 2 + np.arange(width)[None, :] ** 2
    falling = (1.0 + square) ** (-exponent / 2.0)
    falling *= std**2 / falling.mean()
    return np.repeat(falling[..., None], channels, axis=2)


def gaussian(
    split: str, shape: Shape, *, exponent: float, std: float, examples: int
) -> Items:
    """Gaussian images of a known spectrum: the data on which the optimum is exact.

    Image i is drawn from a generator seeded by the split and i, and rounded to levels;
    a std of 0.25 clips about one pixel in 5,000, and no more than 0.3 is taken.
    """
    if not (0.0 < std <= 0.3 and exponent >= 0.0 and examples >= 1):
        raise ConfigError(
            f"data.source: std {std} must be in (0, 0.3], exponent {exponent} 0 or more, "
            f"examples {examples} at least 1"
        )
    scale = np.sqrt(gaussian_variances(shape, exponent, std))
    stream = 0 if split == "train" else 1

    def get(i):
        directions = scale * np.random.default_rng([stream, i]).standard_normal(shape)
        x = fft.idctn(directions, axes=(0, 1), norm="ortho")
        levels = np.clip(np.round((x + 1.0) * 127.5), 0, 255)
        return {"image": levels.astype(np.uint8), "label": 0}

    return Items(examples, get, num_classes=1)
