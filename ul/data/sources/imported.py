"""Shared parts of imported images and clips: manifests, comparison and reading."""

import collections
import hashlib
import json
import struct
from collections.abc import Callable

import numpy as np

from ul.core.errors import DataError
from ul.data import record_shards
from ul.data.image_files import UNREADABLE
from ul.data.record_shards import RecordReader, ShardStore
from ul.data.sources.base import FunctionSource, SourceReport


def write_manifest(
    store: ShardStore, identity: dict, summaries: list[dict], rejected: list[dict]
) -> dict:
    """Write the manifest of an import whose shards are all written, and return it.

    `rejected` lists the files that were skipped: their split, name and reason.
    """

    def split_fields(own: list[dict]) -> dict:
        labels = np.sum([summary["labels"] for summary in own], 0)
        return {"count": int(labels.sum()), "labels": labels.tolist()}

    manifest = record_shards.build_manifest(identity, summaries, split_fields)
    manifest |= {
        "rejected": rejected,
        "digest": record_shards.content_digest(summaries),
    }
    store.write_manifest(manifest)
    return manifest


def differences(stored: dict, requested: dict) -> list[str]:
    """Return one phrase for each difference between the identities of two imports.

    The names of the classes are mentioned only if nothing else explains the difference. An
    import without `made_with` is older than this key; its library versions are unknown.
    """
    separate = ("made_with", "classes", "splits")
    phrases = record_shards.differences(
        stored, {k: v for k, v in requested.items() if k not in separate}
    )
    stored_versions = stored.get("made_with", {})
    phrases += [
        f"made with {library}: stored {stored_versions.get(library, 'an unknown version')}, "
        f"installed {version}; install the stored version to continue this import"
        for library, version in requested["made_with"].items()
        if stored_versions.get(library) != version
    ]
    phrases += record_shards.differences(
        record_shards.flat_splits(stored), record_shards.flat_splits(requested)
    )
    if not phrases and stored.get("classes") != requested["classes"]:
        phrases.append("the names of the classes")
    return phrases


def open_split(
    store: ShardStore, split: str, keys: set[str]
) -> tuple[dict, RecordReader]:
    """Return the manifest, which must have `keys`, and the records of a split.

    Raises:
      DataError: there is no complete import, a shard is missing or has another size, or the
        split is empty.
    """
    manifest, _ = store.load_manifest({"size", "classes"} | keys)
    store.verify(manifest, part=None)
    if not manifest["splits"][split]["count"]:
        raise DataError(
            f"The {split} split of data.source.path {store.path} must have at least one "
            "example; it is empty."
        )
    return manifest, RecordReader(store, manifest, split)


def record_source(
    records: RecordReader,
    unpack: Callable[[bytes], tuple[int, np.ndarray]],
    manifest: dict,
    split: str,
) -> FunctionSource:
    """Return the source of a split, from whose records `unpack` reads label and image.

    Raises:
      DataError: on reading a damaged record.
    """

    def get_example(i):
        record = records[i]
        try:
            label, image = unpack(record)
        except (struct.error, *UNREADABLE) as e:
            raise records.damage_error(i, f"cannot be decoded ({e})") from e
        return {"image": image, "label": label}

    classes, about = manifest["classes"], manifest["splits"][split]
    rejected = [file for file in manifest.get("rejected", ()) if file["split"] == split]
    shards = json.dumps([shard["sha256"] for shard in about["shards"]])
    report = SourceReport(
        classes=dict(zip(classes, about["labels"], strict=True)),
        skipped=dict(collections.Counter(file["why"] for file in rejected)),
        digest=hashlib.sha256(shards.encode()).hexdigest()[:16],
    )
    return FunctionSource(len(records), get_example, len(classes), report)
