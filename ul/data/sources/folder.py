"""A folder of image files, with one subfolder per class."""

import collections
import hashlib
import os
import zlib
from collections.abc import Sequence

from ul.core.errors import DataError
from ul.core.files import display_name
from ul.data import file_listing, image_files
from ul.data.file_listing import FileListing, ListedFile
from ul.data.sources.base import (
    Shape,
    SkipUnreadable,
    SourceReport,
    resize_and_center_crop,
)

# Folders of these names are parts of a dataset and not its classes.
SPLIT_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "eval", "test", "testing")
)


def make_source(
    split: str,
    shape: Shape,
    *,
    path: str,
    eval_path: str = "",
    holdout: float = 0.1,
    max_bad_fraction: float = 0.01,
) -> SkipUnreadable:
    """Return the images of a folder; the classes are its subfolders in alphabetical order.

    The held-out images are those of the folder `eval_path`, with the same class folders.
    Without it they are a fraction `holdout` of the files of `path`, chosen by a hash of
    their relative paths, so adding files moves no other file to the other split. Links are
    followed, and hidden files are skipped. At most `max_bad_fraction` of all files may be
    unreadable, or one file if that is more.

    Raises:
      DataError: the folder is missing, mixes images with class folders, holds splits
        instead of classes, or has no image in this split; or, on reading, too many files
        are unreadable.
    """
    train_images = _list_images(path, "data.source.path")
    classes = _class_names(path, train_images.files)
    own, listing = train_images.files, train_images
    if split == "eval" and eval_path:
        listing = _list_images(eval_path, "data.source.eval_path")
        own = listing.files
        _check_classes(eval_path, _class_names(eval_path, own), classes)
    elif not eval_path:
        own = [f for f in own if _is_held_out(f.name, holdout) == (split == "eval")]
    if not own:
        raise DataError(
            f"data.source.path {path} must hold at least one image of the {split} split; "
            f"found {len(listing.files)} images ({', '.join(image_files.SUFFIXES)}), none of "
            f"which is in this split at data.source.holdout {holdout}. Add images, or change "
            "holdout."
        )
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[_class_folder(file.name)] if classes else 0 for file in own]

    def get_example(i):
        image = image_files.read_image(own[i].path, shape[-1])
        return {"image": resize_and_center_crop(image, shape), "label": labels[i]}

    counts = collections.Counter(labels)
    return SkipUnreadable(
        [file.path for file in own],
        get_example,
        max(len(classes), 1),
        max_unreadable=max(1, int(max_bad_fraction * len(train_images.files))),
        report=SourceReport(
            classes={
                display_name(name): counts[i]
                for i, name in enumerate(classes or ["image"])
            },
            skipped=dict(listing.skipped),
            digest=_listing_digest(own),
        ),
    )


def _list_images(path: str, key: str) -> FileListing:
    """Return the images in a folder; files with other suffixes count as skipped."""
    if not path or not os.path.isdir(path):
        raise DataError(f"{key} must be an existing directory; got {path!r}.")
    listing = file_listing.list_files(path)
    images, suffixes = [], tuple(image_files.SUFFIXES)
    for file in listing.files:
        if file.name.endswith(suffixes):  # fast path: most names
            images.append(file)
            continue
        suffix = os.path.splitext(file.name)[1].lower()
        if suffix in image_files.SUFFIXES:
            images.append(file)
        else:
            listing.skipped[f"no image suffix ({suffix or 'no suffix'})"] += 1
    if not images:
        raise DataError(
            f"{key} {path} must hold images ({', '.join(image_files.SUFFIXES)}); found "
            "none. Pass the folder of the images or of their class folders."
        )
    return FileListing(images, listing.skipped)


def _class_names(path: str, images: Sequence[ListedFile]) -> list[str]:
    """Return the names of the class folders in order; an empty list if there are none."""
    classes = sorted({_class_folder(f.name) for f in images if os.sep in f.name})
    loose = [file for file in images if os.sep not in file.name]
    if classes and loose:
        raise DataError(
            f"{path} must hold either class folders or images; it holds both: "
            f"{display_name(loose[0].name)} lies beside the class folders (1 of {len(loose)} "
            "such files). Move these files into a class folder or out of this directory."
        )
    if len(classes) > 1 and SPLIT_FOLDERS.issuperset(c.lower() for c in classes):
        train = max(classes, key=lambda name: name.lower().startswith("train"))
        raise DataError(
            f"The folders in {path} must be classes; they are splits: {', '.join(classes)}. "
            f"Pass --config.data.source.path={os.path.join(path, train)} and the folder of "
            "held-out images as --config.data.source.eval_path."
        )
    return classes


def _check_classes(path: str, held_out: Sequence[str], classes: Sequence[str]) -> None:
    if unknown := [name for name in held_out if name not in classes]:
        raise DataError(
            f"The class folders in data.source.eval_path {path} must be those of "
            f"data.source.path; {display_name(unknown[0])} is not (1 of {len(unknown)} such "
            "folders). Rename or remove them."
        )
    if classes and not held_out:
        raise DataError(
            f"data.source.eval_path {path} must hold the class folders of data.source.path; "
            "it holds images without folders. Move them into class folders."
        )


def _class_folder(name: str) -> str:
    return name.split(os.sep)[0]


def _is_held_out(name: str, holdout: float) -> bool:
    return zlib.crc32(os.fsencode(name)) / 2**32 < holdout


def _listing_digest(files: Sequence[ListedFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{file.name}\t{file.size}\n"))
    return digest.hexdigest()[:16]
