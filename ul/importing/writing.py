"""Listed files to shards: in order, several at a time, what is broken left out by name."""

import collections
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from ul.checkpoints import workdir
from ul.core.errors import DataError
from ul.core.files import write_atomic
from ul.data import pipeline, record_shards
from ul.data.record_shards import Shard, Store
from ul.data.sources import imported
from ul.importing.archives import Entry
from ul.importing.listing import Labelled, shown

log = logging.getLogger("ul")
_NAMED = 3  # of what is wrong


@dataclasses.dataclass(frozen=True)
class Kind:
    """What files are, and become.

    settings: what a record depends on besides its file. pack(entry, label, content) is the
    record; one of `broken`, the file has none, and `reason` says why.
    """

    noun: str
    settings: dict[str, Any]
    pack: Callable[[Entry, int, bytes], bytes]
    broken: tuple[type[Exception], ...]
    reason: Callable[[Exception], str]


def write(
    to: Store,
    kind: Kind,
    found: dict[str, Labelled],
    classes: list[str],
    *,
    paths: dict[str, str],
    about: dict[str, dict],
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the files found as shards, or go on with it; the manifest.

    `paths`: where each split was found. `about`: what else a split's part of the manifest
    says. Shards that are whole stay.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    with workdir.lock_directory(str(to.path)):
        identity = {
            **kind.settings,
            "shard_examples": shard_examples,
            "classes": classes,
            "splits": {
                split: _identity(listed) | about.get(split, {})
                for split, listed in found.items()
            },
        }
        to.begin(identity, imported.unlike)
        records = _shards(to, kind, found, identity, jobs)
        bad = [one for record in records for one in record["rejected"]]
        _check(to, bad, sum(map(len, found.values())), max_bad_fraction)
        for split, listed in found.items():
            if len(listed) == sum(b["split"] == split for b in bad):
                raise DataError(
                    f"--{split} {paths[split]} has no {kind.noun} that is whole"
                )
        return imported.finish(to, identity, records, bad)


def said(manifest: dict, noun: str) -> str:
    """What was written, a line a split, for people."""
    lines = []
    for split, about in manifest["splits"].items():
        size, labels = sum(s["bytes"] for s in about["shards"]) / 2**20, about["labels"]
        lines.append(
            f"{split}: {about['count']} of {about['files']} {noun}s, {len(labels)} classes "
            f"of {min(labels)} to {max(labels)}, {size:.1f} MiB"
        )
    rejected = len(manifest["rejected"])
    return "\n".join(
        [*lines, f"rejected: {rejected}; digest {manifest['digest'][:16]}"]
    )


def _identity(listed: Labelled) -> dict:
    digest = hashlib.sha256()
    for entry, label in listed:
        line = f"{entry.name}\t{entry.size}\t{label}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return {"files": len(listed), "listing": digest.hexdigest()[:16]}


def _shards(
    to: Store, kind: Kind, found: dict[str, Labelled], identity: dict, jobs: int
) -> list[dict]:
    """Records of all shards in their order; those that are missing are written."""
    counts = {split: len(listed) for split, listed in found.items()}
    every = record_shards.plan(counts, identity["shard_examples"])
    records = {shard: to.finished(shard) for shard in every}
    missing = [shard for shard in every if records[shard] is None]
    log.info("%d of %d shards are there", len(every) - len(missing), len(every))
    with tqdm(
        total=sum(shard.count for shard in missing),
        unit=kind.noun,
        desc="import",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    ) as bar:
        for shard in missing:
            part = found[shard.split][shard.first : shard.first + shard.count]
            classes = len(identity["classes"])
            records[shard] = _write(to, shard, kind, part, classes, jobs, bar)
    return [record for record in records.values() if record is not None]


def _write(
    to: Store,
    shard: Shard,
    kind: Kind,
    part: Labelled,
    classes: int,
    jobs: int,
    bar: tqdm,
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
        if not content:
            return b"", "it is empty"
        try:
            return kind.pack(entry, label, content), ""
        except kind.broken as e:
            return b"", kind.reason(e)

    def packed():
        results = pipeline.ahead(get, len(part), threads=jobs)
        for (entry, label), (record, reason) in zip(part, results, strict=True):
            bar.update()
            if record:
                count[label] += 1
                names.append(shown(entry))
                yield record
            else:
                bad.append({"split": shard.split, "file": shown(entry), "why": reason})

    def about() -> dict:
        labels = [count[label] for label in range(classes)]
        return {"labels": labels, "rejected": bad, "names": names}

    return to.write(shard, packed(), about)


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
