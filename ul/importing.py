"""Original archives to images of one size, once (data/images.py)."""

import collections
import hashlib
import logging
import os
import sys
from collections.abc import Collection, Sequence

from tqdm import tqdm

from ul.core.errors import DataError
from ul.core.files import write_atomic
from ul.data import archives, images, pipeline, shards
from ul.data.archives import Entry
from ul.data.shards import Shard, Store
from ul.data.sources import SUFFIXES
from ul.train import workdir

log = logging.getLogger("ul")
_NAMED = 3  # of what is wrong
Labelled = list[tuple[Entry, int]]


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
    with workdir.locked(where):
        to = images.store(where)
        found, classes = _alike(paths) if one_class else _listed(paths, labels)
        identity = {
            "size": size,
            "made_with": images.made_with(),
            "shard_examples": shard_examples,
            "classes": classes,
            "splits": {split: _identity(listed) for split, listed in found.items()},
        }
        to.begin(identity, images.unlike)
        records = _shards(to, found, identity, jobs)
        bad = [one for record in records for one in record["rejected"]]
        _check(to, bad, sum(map(len, found.values())), max_bad_fraction)
        for split, listed in found.items():
            if len(listed) == sum(b["split"] == split for b in bad):
                raise DataError(f"--{split} {paths[split]} has no image that is whole")
        return images.finish(to, identity, records, bad)


def _identity(listed: Labelled) -> dict:
    digest = hashlib.sha256()
    for entry, label in listed:
        line = f"{entry.name}\t{entry.size}\t{label}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return {"files": len(listed), "listing": digest.hexdigest()[:16]}


def _alike(paths: dict[str, str]) -> tuple[dict, list[str]]:
    """Files of both splits in the order of their names, all of one class."""
    found = {s: [(e, 0) for e in _entries(path)] for s, path in paths.items()}
    return found, ["image"]


def _listed(paths: dict[str, str], labels: str | None) -> tuple[dict, list[str]]:
    """Files and labels of both splits in the order of their names; names of classes."""
    found = {split: _entries(path) for split, path in paths.items()}
    classes = _classes(paths["train"], found["train"])
    number = {name: i for i, name in enumerate(classes)}
    groups = {split: [e.group for e in entries] for split, entries in found.items()}
    said = f"--eval {paths['eval']}"
    if labels is not None:
        groups["eval"], said = _groups(found["eval"], labels, number), labels
    unknown = [(e, g) for e, g in zip(found["eval"], groups["eval"], strict=True)
               if g not in number]  # fmt: skip
    if unknown:
        entry, group = unknown[0]
        of = f"of class {group!r}" if group else "in no class folder or tar"
        raise DataError(
            f"{said}: {_shown(entry)} is {of}, which --train has not, and so are "
            f"{len(unknown) - 1} more; --eval_labels says the classes of files"
        )
    return {
        split: [(e, number[g]) for e, g in zip(entries, groups[split], strict=True)]
        for split, entries in found.items()
    }, classes


def _classes(path: str, entries: list[Entry]) -> list[str]:
    """Names of the training images' classes, in order."""
    classes = sorted({entry.group for entry in entries})
    loose = [entry for entry in entries if not entry.group]
    if loose and len(classes) > 1:
        raise DataError(
            f"--train {path}: {_shown(loose[0])} lies beside the class folders, and so do "
            f"{len(loose) - 1} more; move them into one, or away"
        )
    if loose:
        raise DataError(
            f"--train {path} has no class folders or tars; put each class's "
            "images in a folder of its own, or give --one_class"
        )
    if len(classes) == 1 and all(entry.name.count("/") > 1 for entry in entries):
        raise DataError(
            f"--train {path} has one folder, {classes[0]}, with all classes in it; give "
            "that one, or a tar made inside it"
        )
    return classes


def _shown(entry: Entry) -> str:
    """Its name, also where it is not UTF-8."""
    return entry.name.encode(errors="surrogateescape").decode(errors="replace")


def _entries(path: str) -> list[Entry]:
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
        if suffix in SUFFIXES:
            found.append(entry)
        else:
            others[suffix or "no suffix"] += 1
    said = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not found:
        raise DataError(
            f"{path} has no images ({', '.join(SUFFIXES)})"
            + (f" but {said}" * bool(said))
        )
    if others:
        log.warning("%s: passed over as no images: %s", path, said)
    return sorted(found, key=lambda entry: entry.name)


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
        f"--eval_labels {labels} says nothing of {_shown(entry)}; give a line "
        f"`file class` for each of {count} files, or their classes alone, as many lines, "
        "in the order of the files' names"
    )


def _shards(
    to: Store, found: dict[str, Labelled], identity: dict, jobs: int
) -> list[dict]:
    """Records of all shards in their order; those that are missing are written."""
    counts = {split: len(listed) for split, listed in found.items()}
    every = shards.plan(counts, identity["shard_examples"])
    records = {shard: to.finished(shard) for shard in every}
    missing = [shard for shard in every if records[shard] is None]
    log.info("%d of %d shards are there", len(every) - len(missing), len(every))
    with tqdm(
        total=sum(shard.count for shard in missing),
        unit="image",
        desc="import",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    ) as bar:
        for shard in missing:
            part = found[shard.split][shard.first : shard.first + shard.count]
            records[shard] = _write(to, shard, part, identity, jobs, bar)
    return [record for record in records.values() if record is not None]


def _write(
    to: Store, shard: Shard, part: Labelled, identity: dict, jobs: int, bar: tqdm
) -> dict:
    bad: list[dict] = []
    names: list[str] = []
    count = collections.Counter[int]()

    def get(i: int) -> tuple[bytes, str]:
        entry, label = part[i]
        try:
            content = entry.read()
        except OSError as e:  # perhaps for now alone: it is not for a list
            raise DataError(
                f"{entry.file} cannot be read: {e.strerror}; mend or remove it, then run "
                "it again"
            ) from e
        try:
            return images.pack(label, content, identity["size"]), ""
        except images.BROKEN as e:
            return b"", _reason(entry, e)

    def packed():
        results = pipeline.ahead(get, len(part), threads=jobs)
        for (entry, label), (record, reason) in zip(part, results, strict=True):
            bar.update()
            if record:
                count[label] += 1
                names.append(_shown(entry))
                yield record
            else:
                found = {"split": shard.split, "file": _shown(entry), "why": reason}
                bad.append(found)

    def about() -> dict:
        labels = [count[label] for label in range(len(identity["classes"]))]
        return {"labels": labels, "rejected": bad, "names": names}

    return to.write(shard, packed(), about)


def _reason(entry: Entry, error: Exception) -> str:
    """Without what is of this process alone: the same list every time."""
    if not entry.size:
        return "it is empty"
    if str(error).startswith("cannot identify image file"):
        return "it is no image"
    return str(error).split("\n")[0]


def _check(to: Store, bad: Sequence[dict], files: int, most: float) -> None:
    """Say what was left out; too much of it ends here, before the manifest."""
    if not bad:
        return
    path = to.path / "rejected.txt"
    write_atomic(path, "".join(f"{b['split']} {b['file']}: {b['why']}\n" for b in bad))
    few = "; ".join(f"{b['file']}: {b['why']}" for b in bad[:_NAMED])
    log.warning("%d of %d files were left out, see %s (%s)", len(bad), files, path, few)
    if len(bad) > most * files:
        raise DataError(
            f"{len(bad)} of {files} files are broken, named in {path}; mend them, or "
            f"raise --max_bad_fraction ({most})"
        )
