"""Write listed files as record shards, in order, by several threads.

Broken files are skipped and listed in rejected.txt.
"""

import collections
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from ul.checkpoints import workdir
from ul.core import files
from ul.core.errors import DataError
from ul.core.files import display_name, write_atomic
from ul.data import pipeline, record_shards
from ul.data.record_shards import Shard, ShardStore
from ul.data.sources import imported
from ul.importing.archives import Entry
from ul.importing.listing import LabeledEntries

log = logging.getLogger("ul")
_NUM_EXAMPLES_LOGGED = 3


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """Conversion of files to records.

    noun: "image" or "clip".
    settings: what a record depends on besides its file.
    pack: returns the record of (entry, label, content of the file).
    errors: what `pack` raises for a broken file; describe_error explains one to users.
    compression: of the record shards.
    """

    noun: str
    settings: dict[str, Any]
    pack: Callable[[Entry, int, bytes], bytes]
    errors: tuple[type[Exception], ...]
    describe_error: Callable[[Exception], str]
    compression: str = record_shards.UNCOMPRESSED


def import_entries(
    store: ShardStore,
    record_format: RecordFormat,
    entries: dict[str, LabeledEntries],
    classes: list[str],
    *,
    paths: dict[str, str],
    split_fields: dict[str, dict],
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the files of each split as record shards and return the manifest.

    An interrupted import continues: complete shards are kept. So does one that stopped for
    broken files, once they are repaired or removed: shards whose files did not change are
    kept. `paths` has the folder or tar of
    each split; `split_fields` has further fields of a split in the manifest.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """
    with workdir.lock_directory(str(store.path)):
        identity = {
            **record_format.settings,
            "shard_examples": shard_examples,
            "classes": classes,
            "splits": {
                split: _listing_identity(own) | split_fields.get(split, {})
                for split, own in entries.items()
            },
        }
        _accept_repaired_files(store, identity, entries)
        store.begin(identity, imported.differences)
        summaries = _write_shards(store, record_format, entries, identity, jobs)
        rejected = [file for summary in summaries for file in summary["rejected"]]
        num_files = sum(map(len, entries.values()))
        _report_rejected(store, rejected, num_files, max_bad_fraction)
        for split, own in entries.items():
            if len(own) == sum(file["split"] == split for file in rejected):
                raise DataError(
                    f"--{split} {paths[split]} must have at least one intact "
                    f"{record_format.noun}; all {len(own)} are broken."
                )
        return imported.write_manifest(store, identity, summaries, rejected)


def summarize(manifest: dict, noun: str) -> str:
    """Return a summary of an import for users, one line per split."""
    lines = []
    for split, about in manifest["splits"].items():
        mebibytes = sum(shard["bytes"] for shard in about["shards"]) / 2**20
        labels = about["labels"]
        lines.append(
            f"{split}: {about['count']} of {about['files']} {noun}s, {len(labels)} classes "
            f"of {min(labels)} to {max(labels)} {noun}s, {mebibytes:.1f} MiB"
        )
    rejected = len(manifest["rejected"])
    return "\n".join(
        [*lines, f"rejected: {rejected}; digest {manifest['digest'][:16]}"]
    )


def write_missing_shards(
    store: ShardStore,
    shards: Sequence[Shard],
    write_shard: Callable[[Shard, tqdm], dict],
    *,
    unit: str,
    title: str,
    is_current: Callable[[Shard, dict], bool] = lambda shard, summary: True,
) -> list[dict]:
    """Write the shards that are not complete yet; return all summaries in order.

    `write_shard` gets a shard and the progress bar, which counts in `unit`, and returns the
    summary of the shard. A complete shard for which `is_current(shard, summary)` is false is
    written again.
    """
    summaries = {shard: store.read_summary(shard) for shard in shards}
    for shard, summary in summaries.items():
        if summary is not None and not is_current(shard, summary):
            summaries[shard] = None
    missing = [shard for shard in shards if summaries[shard] is None]
    num_complete = len(shards) - len(missing)
    log.info("%d of %d shards are already written", num_complete, len(shards))
    with tqdm(
        total=sum(shard.count for shard in missing),
        unit=unit,
        desc=title,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    ) as bar:
        for shard in missing:
            summaries[shard] = write_shard(shard, bar)
    return [summary for summary in summaries.values() if summary is not None]


def _listing_identity(entries: LabeledEntries) -> dict:
    return {"files": len(entries), "listing": _listing_digest(entries)}


def _listing_digest(entries: LabeledEntries) -> str:
    digest = hashlib.sha256()
    for entry, label in entries:
        line = f"{entry.name}\t{entry.size}\t{label}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _own_entries(shard: Shard, entries: dict[str, LabeledEntries]) -> LabeledEntries:
    return entries[shard.split][shard.first : shard.first + shard.count]


def _plan_shards(entries: dict[str, LabeledEntries], identity: dict) -> list[Shard]:
    counts = {split: len(own) for split, own in entries.items()}
    return record_shards.plan_shards(counts, identity["shard_examples"])


def _accept_repaired_files(
    store: ShardStore, identity: dict, entries: dict[str, LabeledEntries]
) -> None:
    """Let an import continue although its list of files changed, if that loses nothing.

    That is so if the import is not complete, or if only files that it rejected changed.
    """
    begun = store.read_begun()
    if begun is None or imported.differences(begun, identity | {"splits": {}}):
        return
    is_same = begun["splits"] == identity["splits"]
    if (
        is_same
        or store.is_complete()
        and not _only_rejected_changed(store, identity, entries)
    ):
        return
    log.warning(
        "%s: the list of files changed; shards whose files changed are written again",
        store.path,
    )
    store.begin_again(identity)


def _only_rejected_changed(
    store: ShardStore, identity: dict, entries: dict[str, LabeledEntries]
) -> bool:
    for shard in _plan_shards(entries, identity):
        summary = store.read_summary(shard)
        if summary is None:
            return False
        rejected = {file["file"] for file in summary["rejected"]}
        own = _own_entries(shard, entries)
        kept = [(e, n) for e, n in own if display_name(e.name) not in rejected]
        if summary.get("kept") != _listing_digest(kept):
            return False
    return True


def _write_shards(
    store: ShardStore,
    record_format: RecordFormat,
    entries: dict[str, LabeledEntries],
    identity: dict,
    jobs: int,
) -> list[dict]:
    num_classes = len(identity["classes"])

    def write(shard: Shard, bar: tqdm) -> dict:
        own = _own_entries(shard, entries)
        return _write_shard(store, shard, record_format, own, num_classes, jobs, bar)

    def is_current(shard: Shard, summary: dict) -> bool:
        return summary.get("listing") == _listing_digest(_own_entries(shard, entries))

    return write_missing_shards(
        store,
        _plan_shards(entries, identity),
        write,
        unit=record_format.noun,
        title="import",
        is_current=is_current,
    )


def _write_shard(
    store: ShardStore,
    shard: Shard,
    record_format: RecordFormat,
    entries: LabeledEntries,
    num_classes: int,
    jobs: int,
    bar: tqdm,
) -> dict:
    rejected: list[dict] = []
    names: list[str] = []
    kept: LabeledEntries = []
    count = collections.Counter[int]()

    def pack(i: int) -> tuple[bytes, str]:
        return _pack(record_format, *entries[i])

    def records():
        packed = pipeline.prefetch(pack, len(entries), threads=jobs)
        for (entry, label), (record, reason) in zip(entries, packed, strict=True):
            bar.update()
            name = display_name(entry.name)
            if record:
                count[label] += 1
                names.append(name)
                kept.append((entry, label))
                yield record
            else:
                rejected.append({"split": shard.split, "file": name, "why": reason})

    def more_fields() -> dict:
        labels = [count[label] for label in range(num_classes)]
        return {
            "labels": labels,
            "rejected": rejected,
            "names": names,
            "listing": _listing_digest(entries),
            "kept": _listing_digest(kept),
        }

    return store.write_shard(shard, records(), more_fields, record_format.compression)


def _pack(record_format: RecordFormat, entry: Entry, label: int) -> tuple[bytes, str]:
    """Return the record of a file and "", or b"" and the reason why the file is broken."""
    try:
        # The file may be intact, so it is not rejected for good.
        content = files.read(entry.read, entry.file)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise DataError(
            f"{entry.file} cannot be read: {e.strerror}. Repair or remove it, then run the "
            "same command again."
        ) from e
    if not content:
        return b"", "it is empty"
    try:
        return record_format.pack(entry, label, content), ""
    except record_format.errors as e:
        return b"", record_format.describe_error(e)


def _report_rejected(
    store: ShardStore, rejected: Sequence[dict], num_files: int, max_fraction: float
) -> None:
    """Write rejected.txt, and raise a DataError if it has too many files."""
    path = store.path / "rejected.txt"
    if not rejected:
        path.unlink(missing_ok=True)  # an earlier attempt, before files were repaired
        return
    lines = [f"{file['split']} {file['file']}: {file['why']}\n" for file in rejected]
    write_atomic(path, "".join(lines))
    first = "; ".join(
        f"{file['file']}: {file['why']}" for file in rejected[:_NUM_EXAMPLES_LOGGED]
    )
    log.warning(
        "Skipped %d of %d files, which are listed in %s (%s)",
        len(rejected),
        num_files,
        path,
        first,
    )
    if len(rejected) > max_fraction * num_files:
        raise DataError(
            f"At most a fraction {max_fraction} of the files may be broken; "
            f"{len(rejected)} of {num_files} are. They are listed in {path}: repair them, or "
            "raise --max_bad_fraction."
        )
