"""List the files of an archive and assign each its class."""

import collections
import logging
import os

from tqdm import tqdm

from ul.core.errors import DataError
from ul.core.files import display_name
from ul.importing import archives
from ul.importing.archives import Entry

log = logging.getLogger("ul")
LabeledEntries = list[tuple[Entry, int]]


def list_entries(path: str, noun: str, suffixes: tuple[str, ...]) -> list[Entry]:
    """Return the files in `path` with one of `suffixes`, sorted by name.

    Raises:
      DataError: there are none.
    """
    skipped = collections.Counter[str]()
    bar = tqdm(
        archives.iterate_entries(path, skipped),
        desc=f"list {path}",
        unit="file",
        delay=2.0,
        dynamic_ncols=True,
    )
    entries, ignored = [], collections.Counter[str]()
    for entry in bar:
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in suffixes:
            entries.append(entry)
        else:
            ignored[suffix or "without suffix"] += 1
    ignored_files = ", ".join(f"{n} {suffix}" for suffix, n in sorted(ignored.items()))
    if not entries:
        raise DataError(
            f"{path} must hold {noun}s ({', '.join(suffixes)}); found none, only "
            f"{ignored_files or 'empty folders'}."
        )
    if ignored:
        log.warning("%s: ignored files that are not %ss: %s", path, noun, ignored_files)
    for reason, count in sorted(skipped.items()):
        log.warning("%s: skipped %d entries: %s", path, count, reason)
    return sorted(entries, key=lambda entry: (entry.name, entry.file, entry.offset))


def class_names(
    path: str, entries: list[Entry], groups: list[str], noun: str
) -> list[str]:
    """Return the sorted names of the classes of the training files.

    `groups` has the class of each entry, "" for none.

    Raises:
      DataError: an entry has no class.
    """
    loose = [entry for entry, group in zip(entries, groups, strict=True) if not group]
    if loose and len(loose) < len(entries):
        raise DataError(
            f"Every file in --train {path} must be in a class folder; "
            f"{display_name(loose[0].name)} lies beside the class folders (1 of {len(loose)} "
            "such files). Move these files into a class folder or out of this directory."
        )
    if loose:
        alternative = " or pass --one_class" if noun == "image" else ""
        raise DataError(
            f"--train {path} must have class folders or class tars; found no class folders. "
            f"Put the {noun}s of each class into a folder of its own{alternative}."
        )
    return sorted(set(groups))


def assign_labels(
    entries: dict[str, list[Entry]],
    groups: dict[str, list[str]],
    classes: list[str],
    flag: str,
) -> dict[str, LabeledEntries]:
    """Return every file of each split with the number of its class.

    `groups` has the class of each entry. `flag` is the flag, with its value, that the
    classes of the held-out files come from.

    Raises:
      DataError: a held-out file has a class that no training file has.
    """
    number = {name: i for i, name in enumerate(classes)}
    held_out = zip(entries["eval"], groups["eval"], strict=True)
    if unknown := [(e, group) for e, group in held_out if group not in number]:
        entry, group = unknown[0]
        problem = f"is of class {group!r}" if group else "is in no class folder or tar"
        raise DataError(
            f"The held-out files of {flag} must have classes that --train has; "
            f"{display_name(entry.name)} {problem} (1 of {len(unknown)} such files). "
            "--eval_labels can name the classes of the files."
        )
    return {
        split: [(e, number[g]) for e, g in zip(own, groups[split], strict=True)]
        for split, own in entries.items()
    }
