"""Import images (data/sources/imported_images.py describes the result)."""

import os
from collections.abc import Collection

from ul.core.errors import DataError
from ul.data.sources import imported_images
from ul.data.sources.base import IMAGE_SUFFIXES, UNREADABLE
from ul.importing import listing, writing
from ul.importing.archives import Entry
from ul.importing.listing import LabeledEntries, display_name


def import_images(
    paths: dict[str, str],
    out: str,
    *,
    size: int,
    labels: str | None = None,
    one_class: bool = False,
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the images of `paths` (train, eval) into the directory `out`; return the manifest.

    The class of an image is its folder or inner tar, in alphabetical order; the text file
    `labels` can name the classes of the held-out images instead. With `one_class` folders
    mean nothing, as in datasets with captions. An interrupted import continues.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """

    def pack(entry: Entry, label: int, content: bytes) -> bytes:
        return imported_images.pack(label, content, size)

    record_format = writing.RecordFormat(
        noun="image",
        settings={"size": size, "made_with": imported_images.library_versions()},
        pack=pack,
        errors=UNREADABLE,
        describe_error=_describe_error,
    )
    entries = {
        split: listing.list_entries(path, "image", IMAGE_SUFFIXES)
        for split, path in paths.items()
    }
    if one_class:
        labeled = {split: [(e, 0) for e in own] for split, own in entries.items()}
        classes = ["image"]
    else:
        labeled, classes = _assign_labels(paths, entries, labels)
    return writing.import_entries(
        imported_images.open_store(out),
        record_format,
        labeled,
        classes,
        paths=paths,
        split_fields={},
        shard_examples=shard_examples,
        jobs=jobs,
        max_bad_fraction=max_bad_fraction,
    )


def _assign_labels(
    paths: dict[str, str], entries: dict[str, list[Entry]], labels: str | None
) -> tuple[dict[str, LabeledEntries], list[str]]:
    """Return the entries of both splits with their labels, and the names of the classes."""
    groups = {split: [e.group for e in own] for split, own in entries.items()}
    classes = listing.class_names(
        paths["train"], entries["train"], groups["train"], "image"
    )
    if len(classes) == 1 and all(e.name.count("/") > 1 for e in entries["train"]):
        raise DataError(
            f"--train {paths['train']} must directly hold the class folders; it has one "
            f"folder, {classes[0]}, with all classes in it. Pass that folder, or a tar of its "
            "contents."
        )
    flag = f"--eval {paths['eval']}"
    if labels is not None:
        groups["eval"] = _read_labels(entries["eval"], labels, classes)
        flag = f"--eval_labels {labels}"
    return listing.assign_labels(entries, groups, classes, flag), classes


def _read_labels(
    entries: list[Entry], path: str, classes: Collection[str]
) -> list[str]:
    """Return the class of each held-out file according to a text file.

    Its lines are either the classes alone, in the order of the files' names, or `file class`
    or `file,class`.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--eval_labels {path} cannot be read: {e}") from e
    if len(lines) == len(entries) and set(lines) <= set(classes):
        return lines
    class_by_name: dict[str, str] = {}
    for line in lines:
        name, _, label = line.partition("," if "," in line else " ")
        # In Kaggle's file boxes follow the class; a class may also contain spaces.
        label = label.strip() if label.strip() in classes else label.split(" ")[0]
        known = class_by_name.setdefault(name.strip(), label)
        if known != label:
            raise DataError(
                f"--eval_labels {path} must give each file one class; {name} is {known} and "
                f"{label}."
            )
    return [_find_class(entry, class_by_name, path, len(entries)) for entry in entries]


def _find_class(
    entry: Entry, class_by_name: dict[str, str], path: str, num_files: int
) -> str:
    """Look a file up by its full name, its base name, or its base name without suffix."""
    base = os.path.basename(entry.name)
    for name in (entry.name, base, os.path.splitext(base)[0]):
        if name in class_by_name:
            return class_by_name[name]
    raise DataError(
        f"--eval_labels {path} must give the class of every file; it has none for "
        f"{display_name(entry)}. Write a line `file class` for each of {num_files} files, or "
        "as many lines with the classes alone, in the order of the files' names."
    )


def _describe_error(error: Exception) -> str:
    """Return the reason without the address of the object in Pillow's message.

    The list of rejected files is then the same after each import.
    """
    if str(error).startswith("cannot identify image file"):
        return "it is not an image"
    return str(error).split("\n")[0]
