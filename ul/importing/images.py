"""Original archives of images to images of one size (data/sources/imported_images.py)."""

import os
from collections.abc import Collection

from ul.core.errors import DataError
from ul.data.sources import imported_images
from ul.data.sources.basic import SUFFIXES
from ul.importing import listing, writing
from ul.importing.archives import Entry
from ul.importing.listing import Labelled, shown


def images_of(
    paths: dict[str, str],
    where: str,
    *,
    size: int,
    labels: str | None = None,
    one_class: bool = False,
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the images of `paths` (train, eval) as shards, or go on with it; the manifest.

    A training image's class is its folder or inner tar, in alphabetical order; a held-out
    one's too, or what the file `labels` says. With `one_class` folders mean nothing, as
    in data sets with captions. Shards that are whole stay.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    kind = writing.Kind(
        noun="image",
        settings={"size": size, "made_with": imported_images.made_with()},
        pack=lambda entry, label, content: imported_images.pack(label, content, size),
        broken=imported_images.BROKEN,
        reason=_reason,
    )
    found, classes = _alike(paths) if one_class else _listed(paths, labels)
    return writing.write(
        imported_images.store(where),
        kind,
        found,
        classes,
        paths=paths,
        about={},
        shard_examples=shard_examples,
        jobs=jobs,
        max_bad_fraction=max_bad_fraction,
    )


def _found(paths: dict[str, str]) -> dict[str, list[Entry]]:
    return {s: listing.entries(path, "image", SUFFIXES) for s, path in paths.items()}


def _alike(paths: dict[str, str]) -> tuple[dict[str, Labelled], list[str]]:
    """Files of both splits in the order of their names, all of one class."""
    found = {split: [(e, 0) for e in files] for split, files in _found(paths).items()}
    return found, ["image"]


def _listed(
    paths: dict[str, str], labels: str | None
) -> tuple[dict[str, Labelled], list[str]]:
    """Files and labels of both splits in the order of their names; names of classes."""
    found = _found(paths)
    groups = {split: [e.group for e in files] for split, files in found.items()}
    classes = listing.classes_of(
        paths["train"], found["train"], groups["train"], "image"
    )
    if len(classes) == 1 and all(e.name.count("/") > 1 for e in found["train"]):
        raise DataError(
            f"--train {paths['train']} has one folder, {classes[0]}, with all classes in "
            "it; give that one, or a tar made inside it"
        )
    said = f"--eval {paths['eval']}"
    if labels is not None:
        groups["eval"], said = _groups(found["eval"], labels, classes), labels
    return listing.labelled(found, groups, classes, said), classes


def _groups(entries: list[Entry], labels: str, classes: Collection[str]) -> list[str]:
    """The class of each held-out file, as the file `labels` says."""
    try:
        with open(labels, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--eval_labels {labels} cannot be read: {e}") from e
    if len(lines) == len(entries) and set(lines) <= set(classes):
        return lines
    named: dict[str, str] = {}
    for line in lines:
        name, _, said = line.partition("," if "," in line else " ")
        # After Kaggle's classes come boxes.
        said = said.strip() if said.strip() in classes else said.split(" ")[0]
        if named.setdefault(name.strip(), said) != said:
            raise DataError(
                f"--eval_labels {labels} says that {name} is {named[name]} and {said}"
            )
    return [_said(entry, named, labels, len(entries)) for entry in entries]


def _said(entry: Entry, named: dict[str, str], labels: str, count: int) -> str:
    """By its whole name, by the file's alone, or that without its suffix."""
    base = os.path.basename(entry.name)
    for name in (entry.name, base, os.path.splitext(base)[0]):
        if name in named:
            return named[name]
    raise DataError(
        f"--eval_labels {labels} says nothing of {shown(entry)}; give a line "
        f"`file class` for each of {count} files, or their classes alone, as many lines, "
        "in the order of the files' names"
    )


def _reason(error: Exception) -> str:
    """Without what is of this process alone: the same list every time."""
    if str(error).startswith("cannot identify image file"):
        return "it is no image"
    return str(error).split("\n")[0]
