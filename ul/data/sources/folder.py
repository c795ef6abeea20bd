"""A folder of image files, with one subfolder per class."""

import os
import zlib

from etils import epath

from ul.core.errors import DataError
from ul.core.files import is_hidden
from ul.data.sources.base import (
    IMAGE_SUFFIXES,
    Shape,
    SkipUnreadable,
    open_image,
    resize_and_center_crop,
)


def make_source(
    split: str,
    shape: Shape,
    *,
    path: str,
    holdout: float = 0.1,
    max_bad_fraction: float = 0.01,
) -> SkipUnreadable:
    """Return the images of a folder; the classes are its subfolders in alphabetical order.

    A fraction `holdout` of the files, chosen by a hash of their relative paths, is held
    out, so adding files moves no other file to the other split.

    Raises:
      DataError: the folder is missing, mixes images with class folders, or has no image in
        this split; or, on reading, too many files are unreadable.
    """
    root = epath.Path(path)
    names = _image_names(root)
    classes = sorted({_class_folder(name) for name in names if os.sep in name})
    loose = [name for name in names if os.sep not in name]
    if classes and loose:
        raise DataError(
            f"data.source.path {path} must hold either class folders or images; it holds "
            f"both: {loose[0]} lies beside the class folders (1 of {len(loose)} such files). "
            "Move these files into a class folder or out of this directory."
        )
    own = [name for name in names if _is_held_out(name, holdout) == (split == "eval")]
    if not own:
        raise DataError(
            f"data.source.path {path} must hold at least one image of the {split} split; "
            f"found {len(names)} images ({', '.join(IMAGE_SUFFIXES)}), none of which is in "
            f"this split at data.source.holdout {holdout}. Add images, or change holdout."
        )
    files = [os.path.join(root, name) for name in own]

    def get_example(i):
        label = classes.index(_class_folder(own[i])) if os.sep in own[i] else 0
        with open_image(files[i]) as image:
            return {"image": resize_and_center_crop(image, shape), "label": label}

    return SkipUnreadable(files, get_example, max_bad_fraction, max(len(classes), 1))


def _image_names(root: epath.Path) -> list[str]:
    """Return the paths of all images that are not hidden, relative to `root`, in order."""
    if not root.is_dir():
        raise DataError(f"data.source.path must be an existing directory; got {root}.")
    names = [
        os.path.relpath(os.path.join(directory, file), root)
        for directory, _, files in sorted(os.walk(root))
        for file in sorted(files)
        if file.lower().endswith(IMAGE_SUFFIXES)
    ]
    return [name for name in names if not is_hidden(name)]


def _class_folder(name: str) -> str:
    return name.split(os.sep)[0]


def _is_held_out(name: str, holdout: float) -> bool:
    return zlib.crc32(name.encode()) / 2**32 < holdout
