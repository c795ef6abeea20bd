"""Original archives to images of one size, once (data/images.py)."""

import collections
import hashlib
import logging
import sys
from collections.abc import Sequence

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
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the images of `paths` (train, eval) as shards, or go on with it; the manifest.

    A training image's class is its folder or inner tar, in alphabetical order; a held-out
    one's too, or what the file `labels` says. Shards that are whole stay.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    with workdir.locked(where):
        to = images.store(where)
        found, classes = _listed(paths, labels)
        identity = {
            "size": size,
            "shard_examples": shard_examples,
            "classes": classes,
            "splits": {split: _identity(listed) for split, listed in found.items()},
        }
        to.begin(identity, images.unlike)
        records = _shards(to, found, identity, jobs)
        bad = [one for record in records for one in record["rejected"]]
        _check(to, bad, sum(map(len, found.values())), max_bad_fraction)
        return images.finish(to, identity, records, bad)


def _identity(listed: Labelled) -> dict:
    digest = hashlib.sha256()
    for entry, label in listed:
        digest.update(f"{entry.name}\t{entry.size}\t{label}\n".encode())
    return {"files": len(listed), "listing": digest.hexdigest()[:16]}


def _listed(paths: dict[str, str], labels: str | None) -> tuple[dict, list[str]]:
    """Files and labels of both splits in the order of their names; names of classes."""
    found = {split: _entries(path) for split, path in paths.items()}
    classes = sorted({entry.group for entry in found["train"]})
    if classes == [""]:
        raise DataError(
            f"--train {paths['train']} has no class folders or tars; put each class's "
            "images in a folder of its own"
        )
    number = {name: i for i, name in enumerate(classes)}
    groups = {
        "train": [e.group for e in found["train"]],
        "eval": _groups(found["eval"], labels),
    }
    listed = {}
    for split, entries in found.items():
        unknown = sorted(set(groups[split]) - number.keys())
        if unknown:
            raise DataError(
                f"--{split} {paths[split]} has classes that --train has not: "
                f"{', '.join(repr(u) for u in unknown[:_NAMED])}, {len(unknown)} in all; "
                "a tar of files alone needs --eval_labels"
            )
        listed[split] = [
            (e, number[g]) for e, g in zip(entries, groups[split], strict=True)
        ]
    return listed, classes


def _entries(path: str) -> list[Entry]:
    bar = tqdm(
        archives.entries(path, SUFFIXES),
        desc=f"list {path}",
        unit="file",
        delay=2.0,
        dynamic_ncols=True,
    )
    found = sorted(bar, key=lambda entry: entry.name)
    if not found:
        raise DataError(f"{path} has no images ({', '.join(SUFFIXES)})")
    return found


def _groups(entries: list[Entry], labels: str | None) -> list[str]:
    """The class of each held-out file."""
    if labels is None:
        return [entry.group for entry in entries]
    try:
        with open(labels) as file:
            lines = [line.replace(",", " ").split() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--eval_labels {labels} cannot be read: {e}") from e
    if all(len(words) == 1 for words in lines) and len(lines) == len(entries):
        return [words[0] for words in lines]
    named = {words[0].split(".")[0]: words[1] for words in lines if len(words) > 1}
    stems = [entry.name.rpartition("/")[2].split(".")[0] for entry in entries]
    missing = [stem for stem in stems if stem not in named]
    if missing:
        raise DataError(
            f"--eval_labels {labels} says nothing of {missing[0]} and {len(missing) - 1} "
            f"more; give a line `file class` for each, or {len(entries)} lines with the "
            "class alone in the order of the files' names"
        )
    return [named[stem] for stem in stems]


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
    count = collections.Counter[int]()

    def get(i: int) -> tuple[bytes, str]:
        entry, label = part[i]
        try:
            return images.pack(label, entry.read(), identity["size"]), ""
        except images.BROKEN as e:
            return b"", _reason(entry, e)

    def packed():
        found = pipeline.ahead(get, len(part), threads=jobs)
        for (entry, label), (record, reason) in zip(part, found, strict=True):
            bar.update()
            if record:
                count[label] += 1
                yield record
            else:
                bad.append({"split": shard.split, "file": entry.name, "why": reason})

    def about() -> dict:
        labels = [count[label] for label in range(len(identity["classes"]))]
        return {"labels": labels, "rejected": bad}

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
