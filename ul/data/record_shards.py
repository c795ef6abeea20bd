"""Directories of ArrayRecord shards for records that are expensive to compute.

    begun.json                          the identity of the intended content
    train-00003-of-00016.array_record   the records of one shard
    train-00003-of-00016.json           its summary: digest, count and more, written after it
    manifest.json                       the identity and all summaries, written last

The bytes of a shard depend only on the identity, not on which process writes it, so any
number of processes and interruptions gives the same directory.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from array_record.python import array_record_data_source, array_record_module
from etils import epath
from tqdm import tqdm

from ul.core import files, sealed_json
from ul.core.errors import ConfigError, DataError

UNCOMPRESSED, ZSTD_1 = "uncompressed", "zstd:1"  # compression of shards
SUFFIX = ".array_record"
SEAL = "record_digest"  # "digest" is the entry for that of the examples


@dataclasses.dataclass(frozen=True)
class Shard:
    """The examples first .. first + count - 1 of a split: shard `index` of `num_shards`."""

    split: str
    index: int
    num_shards: int
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.num_shards:05d}"


def plan_shards(counts: dict[str, int], shard_examples: int) -> list[Shard]:
    """Return the shards of all splits, given the number of examples of each split."""
    shards = []
    for split, count in counts.items():
        num_shards = math.ceil(count / shard_examples)
        for index in range(num_shards):
            first = index * shard_examples
            size = min(shard_examples, count - first)
            shards.append(Shard(split, index, num_shards, first, size))
    return shards


@dataclasses.dataclass(frozen=True)
class ShardStore:
    """A directory of shards.

    The messages to users name its content, `description`, and the `command` that writes it.
    """

    path: epath.Path
    description: str
    command: str

    def rerun_to(self, purpose: str) -> str:
        """Return the sentence that tells a user to run the command again."""
        return f"Run the same {self.command} command again to {purpose}."

    def begin(self, identity: dict, compare: Callable[[dict, dict], list[str]]) -> None:
        """Write begun.json, or check that the directory was begun with the same identity.

        `compare(stored, requested)` returns one phrase for each difference.

        Raises:
          ConfigError: the directory was begun with another identity.
        """
        path = self.path / "begun.json"
        if not files.exists(path):
            if files.names(self.path, SUFFIX):
                raise ConfigError(
                    f"{self.path} must have begun.json, which records what its shards contain; "
                    "it is missing. Choose another --out, or delete the directory."
                )
            return files.write_atomic(path, _seal(identity))
        try:
            differences = compare(self._read_json(path), identity)
        except (KeyError, TypeError):
            differences = ["another command began it"]
        if differences:
            raise ConfigError(
                f"--out {self.path} must be new or hold the same {self.description}; it "
                f"differs ({'; '.join(differences)}). Choose another --out, or delete the "
                "directory."
            )

    def read_begun(self) -> dict | None:
        """Return the identity with which the directory was begun; None for a new one.

        Raises:
          DataError: begun.json cannot be read.
        """
        path = self.path / "begun.json"
        return self._read_json(path) if files.exists(path) else None

    def begin_again(self, identity: dict) -> None:
        """Replace the identity. The directory is incomplete until a new manifest is written.

        Raises:
          StorageError: the directory cannot be written.
        """
        files.remove(self.path / "manifest.json")
        files.write_atomic(self.path / "begun.json", _seal(identity))

    def is_complete(self) -> bool:
        """Return whether there is a manifest, which is written last."""
        return files.exists(self.path / "manifest.json")

    def read_summary(self, shard: Shard) -> dict | None:
        """Return the summary of a shard, or None unless it is complete and undamaged.

        Raises:
          StorageError: it cannot be read.
        """
        try:
            summary = _unseal(files.read_text(self.path / f"{shard.name}.json"))
            intact = files.sha256(self.path / summary["file"]) == summary["sha256"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return summary if intact else None

    def write_shard(
        self,
        shard: Shard,
        records: Iterable[bytes],
        more_fields: Callable[[], dict],
        compression: str = UNCOMPRESSED,
    ) -> dict:
        """Write one shard, completely or not at all, and return its summary.

        `more_fields` is called after the last record and returns further fields of the
        summary. `compression` is UNCOMPRESSED or ZSTD_1.

        Raises:
          StorageError: the disk cannot be written. Errors of `records` and `more_fields`
            propagate.
        """
        count, path = 0, self.path / f"{shard.name}{SUFFIX}"
        with tempfile.TemporaryDirectory() as scratch:
            local = "://" not in str(self.path)
            folder = self.path if local else epath.Path(scratch)
            part = folder / f".{shard.name}.part"
            with _storage_errors(path):
                # With groups of one record a reader fetches no other record.
                writer = array_record_module.ArrayRecordWriter(
                    str(part), f"group_size:1,{compression}"
                )
            for record in records:
                with _storage_errors(path):
                    writer.write(record)
                count += 1
            with _storage_errors(path):
                writer.close()
            digest, length = files.sha256(part), files.size(part)
            move = (
                functools.partial(part.replace, path)
                if local
                else functools.partial(part.copy, path, overwrite=True)
            )
            files.write(move, path)
        summary = {"file": path.name, "count": count, "bytes": length, "sha256": digest}
        summary |= more_fields()
        files.write_atomic(self.path / f"{shard.name}.json", _seal(summary))
        return summary

    def write_manifest(self, manifest: dict) -> None:
        """Write manifest.json, which declares the directory complete."""
        files.write_atomic(self.path / "manifest.json", _seal(manifest))

    def load_manifest(self, keys: set[str]) -> tuple[dict, str]:
        """Return the manifest, which must have `keys`, and a digest that identifies it.

        Raises:
          DataError: there is no manifest, or it is that of something else.
        """
        path = self.path / "manifest.json"
        if not files.exists(path):
            if files.exists(self.path / "begun.json"):
                raise DataError(
                    f"The {self.description} in {self.path} is incomplete: manifest.json is "
                    f"missing. {self.rerun_to('finish it')}"
                )
            raise DataError(
                f"No {self.description} found in {self.path}: manifest.json is missing. "
                f"Write one with {self.command}."
            )
        manifest = self._read_json(path)
        if missing := _missing_keys(manifest, keys):
            raise DataError(
                f"{path} must be the manifest of a {self.description}; it lacks "
                f"{', '.join(missing)}. Pass the directory that {self.command} wrote."
            )
        return manifest, files.sha256(path)[:16]

    def _read_json(self, path: epath.Path) -> Any:
        try:
            return _unseal(files.read_text(path))
        except (FileNotFoundError, ValueError) as e:
            raise DataError(
                f"{path} cannot be read: {_first_line(e)}. {self.rerun_to('repair it')}"
            ) from e

    def verify(self, manifest: dict, *, part: tuple[int, int] | None) -> None:
        """Check that every shard is there and has its size.

        With `part` (i, n) also check the digests of every n-th shard from the i-th on,
        under a progress bar.

        Raises:
          DataError: a shard is missing or damaged; the message names it.
        """
        for split, about in manifest["splits"].items():
            total = sum(shard["count"] for shard in about["shards"])
            if total != about["count"]:
                raise DataError(
                    f"The {split} shards in {self.path} must hold {about['count']} examples "
                    f"together, as the manifest says; they hold {total}."
                )
        shards = [s for about in manifest["splits"].values() for s in about["shards"]]
        for shard in shards:
            self._check_size(shard)
        selected = [] if part is None else shards[part[0] :: part[1]]
        for shard in _progress(selected, f"digests of the {self.description}"):
            self._check_digest(shard)

    def _check_size(self, shard: dict) -> None:
        path = self.path / shard["file"]
        try:
            num_bytes = files.size(path)
        except (FileNotFoundError, NotADirectoryError) as e:
            raise DataError(f"{path} is missing. {self.rerun_to('write it')}") from e
        if num_bytes != shard["bytes"]:
            raise DataError(
                f"{path} has {num_bytes} bytes, not {shard['bytes']}. "
                f"{self.rerun_to('repair it')}"
            )

    def _check_digest(self, shard: dict) -> None:
        path = self.path / shard["file"]
        if files.sha256(path) != shard["sha256"]:
            raise DataError(
                f"{path} is damaged: its digest is not that of the manifest. "
                f"{self.rerun_to('repair it')}"
            )


class RecordReader:
    """The records of one split by number; ArrayRecord verifies each record's checksum."""

    def __init__(self, store: ShardStore, manifest: dict, split: str):
        self._store = store
        self._files = [
            _ShardFile(str(store.path / s["file"]), 0, s["count"], s["count"])
            for s in manifest["splits"][split]["shards"]
            if s["count"]
        ]
        self._ends = np.cumsum([file.take for file in self._files])
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> bytes:
        try:
            return self._records[i]
        except (RuntimeError, ValueError, IndexError, OSError) as e:
            raise self.damage_error(i, f"cannot be read ({_first_line(e)})") from e

    def damage_error(self, i: int, problem: str) -> DataError:
        """Return the error for record i; `problem` is a predicate, such as "is empty"."""
        file = self._files[int(np.searchsorted(self._ends, i, "right"))].filename
        return DataError(
            f"{file}: record {i} {problem}. {self._store.rerun_to('repair it')}"
        )


@dataclasses.dataclass(frozen=True)
class _ShardFile:
    """A whole shard as the `FileInstruction` that array_record expects."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def difference(key: str, stored: Any, requested: Any) -> str:
    """Return the phrase that tells a user in what two identities differ."""
    return f"{key}: stored {stored}, requested {requested}"


def differences(stored: Mapping, requested: Mapping) -> list[str]:
    """Return one phrase for each key of `requested` that has another value in `stored`."""
    return [
        difference(key, stored.get(key), value)
        for key, value in requested.items()
        if stored.get(key) != value
    ]


def flat_splits(identity: Mapping) -> dict[str, Any]:
    """Return what an identity says about its splits as {"<split> <key>": value}."""
    return {
        f"{split} {key}": value
        for split, about in identity.get("splits", {}).items()
        for key, value in about.items()
    }


def build_manifest(
    identity: dict,
    summaries: list[dict],
    split_fields: Callable[[list[dict]], dict],
) -> dict:
    """Return the identity with the shards of each split, in their order.

    `split_fields` computes further fields of a split from the summaries of its shards.
    """
    shards_by_split = {}
    for split, about in identity["splits"].items():
        own = [s for s in summaries if s["file"].startswith(f"{split}-")]
        fields = ("file", "count", "bytes", "sha256")
        shards = [{key: summary[key] for key in fields} for summary in own]
        shards_by_split[split] = about | split_fields(own) | {"shards": shards}
    return identity | {"splits": shards_by_split}


def content_digest(summaries: list[dict]) -> str:
    """Return the SHA-256 digest of the shards' own digests, in their order."""
    digests = "".join(summary["sha256"] for summary in summaries)
    return hashlib.sha256(digests.encode()).hexdigest()


def _missing_keys(content: Any, keys: set[str]) -> list[str]:
    """Return the keys, dotted, that a manifest must have and this content lacks."""
    top = content if isinstance(content, dict) else {}
    if missing := sorted((keys | {"splits"}) - top.keys()):
        return missing
    records = {"train": {}, "eval": {}} | top["splits"]
    return [
        f"splits.{split}.{key}"
        for split, record in records.items()
        for key in ("count", "shards")
        if key not in record
    ]


@contextlib.contextmanager
def _storage_errors(path: epath.Path) -> Iterator[None]:
    """Raise a StorageError when the disk refuses; ArrayRecord raises RuntimeError then."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        raise files.write_error(path, e) from e


def _seal(record: dict) -> str:
    return json.dumps(sealed_json.seal(record, SEAL), indent=2)


def _unseal(text: str) -> dict:
    record = sealed_json.unseal(text, SEAL)
    record.pop(SEAL, None)  # It is none of what the writer wrote.
    return record


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _progress(shards: list[dict], title: str) -> Iterator[dict]:
    """Yield the shards under a progress bar in bytes, which appears after two seconds."""
    with tqdm(
        total=sum(shard["bytes"] for shard in shards),
        unit="B",
        unit_scale=True,
        desc=title,
        delay=2.0,
        dynamic_ncols=True,
    ) as bar:
        for shard in shards:
            yield shard
            bar.update(shard["bytes"])
