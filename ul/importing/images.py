"""Import images (data/sources/imported_images.py describes the result)."""

from collections.abc import Collection

from ul.core import text_files
from ul.core.errors import DataError
from ul.core.files import display_name
from ul.data import record_shards
from ul.data.image_files import SUFFIXES, UNREADABLE
from ul.data.sources import imported_images
from ul.importing import listing, writing
from ul.importing.archives import Entry
from ul.importing.listing import LabeledEntries
from ul.importing.name_matching import NameMatcher


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

    store = imported_images.open_store(out)
    as_png = "records" not in (store.read_begun() or {"records": ""})  # an older import

    def pack(entry: Entry, label: int, content: bytes) -> bytes:
        return imported_images.pack(label, content, size, as_png=as_png)

    record_format = writing.RecordFormat(
        noun="image",
        settings=({} if as_png else {"records": "row differences"})
        | {
            "size": size,
            "orientation": "upright",  # Older versions ignored EXIF.
            "made_with": imported_images.library_versions(),
        },
        compression=record_shards.UNCOMPRESSED if as_png else record_shards.ZSTD_1,
        pack=pack,
        errors=UNREADABLE,
        describe_error=_describe_error,
    )
    entries = {
        split: listing.list_entries(path, "image", SUFFIXES)
        for split, path in paths.items()
    }
    if one_class:
        labeled = {split: [(e, 0) for e in own] for split, own in entries.items()}
        classes = ["image"]
    else:
        labeled, classes = _assign_labels(paths, entries, labels)
    return writing.import_entries(
        store,
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
    text = text_files.read(path, f"--eval_labels {path}")
    lines = [line.strip() for _, line in text_files.numbered_lines(text)]
    if len(lines) == len(entries) and set(lines) <= set(classes):
        return lines
    class_by_name: dict[str, str] = {}
    for line in lines:
        name, label = _split_label(line, classes)
        known = class_by_name.setdefault(name, label)
        if known != label:
            raise DataError(
                f"--eval_labels {path} must give each file one class; {name} is {known} and "
                f"{label}."
            )
    names = [entry.name for entry in entries]
    matcher = NameMatcher(
        class_by_name, names, noun="class", source=f"--eval_labels {path}"
    )
    labels = [matcher.find(name) for name in names]
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if missing:
        raise DataError(
            f"--eval_labels {path} must give the class of every file; it has none for "
            f"{display_name(missing[0])} (1 of {len(missing)} such files of {len(names)}). "
            "Write a line `file class` for each, or as many lines with the classes alone, in "
            "the order of the files' names."
        )
    return [label for label in labels if label is not None]


def _split_label(line: str, classes: Collection[str]) -> tuple[str, str]:
    """Return file and class of a line; both may contain spaces.

    In Kaggle's file of ImageNet boxes follow the class.
    """
    for delimiter in (",", "\t"):
        if delimiter in line:
            name, *fields = text_files.split_row(line, delimiter)
            label = fields[0].strip() if fields else ""
            known = label in classes
            return name.strip(), label if known else label.split(" ")[0]
    words = line.split(" ")
    for i in range(1, len(words)):
        if (label := " ".join(words[i:]).strip()) in classes:
            return " ".join(words[:i]).strip(), label
    return words[0], words[1] if len(words) > 1 else ""


def _describe_error(error: Exception) -> str:
    """Return the reason without the address of the object in Pillow's message.

    The list of rejected files is then the same after each import.
    """
    if str(error).startswith("cannot identify image file"):
        return "it is not an image"
    return str(error).split("\n")[0]
