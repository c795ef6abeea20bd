"""Which files there are, and of which class each is."""

import collections
import logging
import os

from tqdm import tqdm

from ul.core.errors import DataError
from ul.importing import archives
from ul.importing.archives import Entry

log = logging.getLogger("ul")
Labelled = list[tuple[Entry, int]]


def shown(entry: Entry) -> str:
    """Its name, also where it is not UTF-8."""
    return entry.name.encode(errors="surrogateescape").decode(errors="replace")


def entries(path: str, noun: str, suffixes: tuple[str, ...]) -> list[Entry]:
    """The files below `path` with these suffixes, in the order of their names.

    Raises:
      DataError: there are none.
    """
    bar = tqdm(
        archives.entries(path),
        desc=f"list {path}",
        unit="file",
        delay=2.0,
        dynamic_ncols=True,
    )
    found, others = [], collections.Counter[str]()
    for entry in bar:
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in suffixes:
            found.append(entry)
        else:
            others[suffix or "no suffix"] += 1
    said = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not found:
        raise DataError(
            f"{path} has no {noun}s ({', '.join(suffixes)})"
            + (f" but {said}" * bool(said))
        )
    if others:
        log.warning("%s: passed over as no %ss: %s", path, noun, said)
    return sorted(found, key=lambda entry: (entry.name, entry.file, entry.offset))


def classes_of(
    path: str, found: list[Entry], groups: list[str], noun: str
) -> list[str]:
    """Names of the training files' classes, in order; `groups`: of each file.

    Raises:
      DataError: a file has none.
    """
    loose = [entry for entry, group in zip(found, groups, strict=True) if not group]
    if loose and len(loose) < len(found):
        raise DataError(
            f"--train {path}: {shown(loose[0])} lies beside the class folders, and so do "
            f"{len(loose) - 1} more; move them into one, or away"
        )
    if loose:
        raise DataError(
            f"--train {path} has no class folders or tars; put each class's "
            f"{noun}s in a folder of its own"
            + ", or give --one_class"
            * (noun == "image")
        )
    return sorted(set(groups))


def labelled(
    found: dict[str, list[Entry]],
    groups: dict[str, list[str]],
    classes: list[str],
    said: str,
) -> dict[str, Labelled]:
    """Every file with the number of its class. `said`: what says the held-out ones'.

    Raises:
      DataError: a held-out file is of a class that no training file has.
    """
    number = {name: i for i, name in enumerate(classes)}
    held_out = zip(found["eval"], groups["eval"], strict=True)
    if unknown := [(e, group) for e, group in held_out if group not in number]:
        entry, group = unknown[0]
        of = f"of class {group!r}" if group else "in no class folder or tar"
        raise DataError(
            f"{said}: {shown(entry)} is {of}, which --train has not, and so are "
            f"{len(unknown) - 1} more; --eval_labels says the classes of files"
        )
    return {
        split: [(e, number[g]) for e, g in zip(files, groups[split], strict=True)]
        for split, files in found.items()
    }
