"""ArrayRecord shards of records that cost time to make, and a manifest written last.

    begun.json                          what the store is to hold: its identity
    train-00003-of-00016.array_record   the records of one shard
    train-00003-of-00016.json           its digest, its count and more, written after it
    manifest.json                       all that, once every shard is there

A shard's bytes depend on what it is made of, not on who makes it: any number of processes,
and any number of interruptions, gives the same store.
"""

import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from array_record.python import array_record_data_source, array_record_module
from etils import epath
from tqdm import tqdm

from ul.core.errors import ConfigError, DataError, StorageError
from ul.core.files import sha256, write_atomic

SUFFIX = ".array_record"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items first .. first + count - 1 of a split; number `index` of `of`."""

    split: str
    index: int
    of: int
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}"


def plan(splits: dict[str, int], size: int) -> list[Shard]:
    """All shards of splits of so many items, at most `size` in each, split by split."""
    found = []
    for split, count in splits.items():
        of = math.ceil(count / size)
        for i in range(of):
            first = i * size
            found.append(Shard(split, i, of, first, min(size, count - first)))
    return found


@dataclasses.dataclass(frozen=True)
class Store:
    """A directory of shards. For messages: `what` it is, and the `command` that writes it."""

    path: epath.Path
    what: str
    command: str

    @property
    def again(self) -> str:
        return f"run the same {self.command} again"

    def begin(self, identity: dict, unlike: Callable[[dict, dict], list[str]]) -> None:
        """Say what is to be held, or check that it is what was begun here.

        `unlike(there, here)`: the differences of two identities, one phrase each.

        Raises:
          ConfigError: it is something else.
        """
        path = self.path / "begun.json"
        if not path.exists():
            if any(self.path.glob(f"*{SUFFIX}")):
                raise ConfigError(
                    f"{self.path} has shards but no begun.json that says of what; "
                    "choose another --out or delete it"
                )
            return write_atomic(path, json.dumps(identity, indent=2))
        if differences := unlike(self._read(path), identity):
            raise ConfigError(
                f"{self.path} holds, or was to hold, another {self.what} "
                f"({'; '.join(differences)}); choose another --out or delete it"
            )

    def finished(self, shard: Shard) -> dict | None:
        """The record of a shard that is whole and undamaged; None if it must be written."""
        try:
            record = json.loads((self.path / f"{shard.name}.json").read_text())
            whole = sha256(self.path / record["file"]) == record["sha256"]
        except (OSError, ValueError, KeyError):
            return None
        return record if whole else None

    def write(
        self, shard: Shard, records: Iterable[bytes], about: Callable[[], dict]
    ) -> dict:
        """One shard, whole or not there; its record. `about()`: what else that is to say,
        asked for when all records have been made.

        Raises:
          StorageError: the disk refuses. Whatever making a record raises.
        """
        count, end = 0, self.path / f"{shard.name}{SUFFIX}"
        with tempfile.TemporaryDirectory() as scratch:
            local = "://" not in str(self.path)
            folder = self.path if local else epath.Path(scratch)
            part = folder / f".{shard.name}.part"
            with _storing(end):
                # Latents and PNGs hardly compress; a group of one record is read alone.
                writer = array_record_module.ArrayRecordWriter(
                    str(part), "group_size:1,uncompressed"
                )
            for record in records:
                with _storing(end):
                    writer.write(record)
                count += 1
            with _storing(end):
                writer.close()
                digest, size = sha256(part), part.stat().length
                part.replace(end) if local else part.copy(end, overwrite=True)
        found = {"file": end.name, "count": count, "bytes": size, "sha256": digest}
        found |= about()
        write_atomic(self.path / f"{shard.name}.json", json.dumps(found))
        return found

    def finish(self, manifest: dict) -> None:
        """Everything is there. `manifest`: splits with their `count` and `shards`, and more."""
        write_atomic(self.path / "manifest.json", json.dumps(manifest, indent=2))

    def load(self, keys: set[str]) -> tuple[dict, str]:
        """The manifest, which has these `keys`, and a digest of it that names the store.

        Raises:
          DataError: there is none, or the store is half written.
        """
        path = self.path / "manifest.json"
        if not path.exists():
            raise DataError(
                f"{self.path} is half written, it has no manifest.json; {self.again}"
                if (self.path / "begun.json").exists()
                else f"{self.path} is no {self.what}; write one with {self.command}"
            )
        manifest = self._read(path)
        if not _is_manifest(manifest, keys):
            raise DataError(f"{path} is of no {self.what}")
        return manifest, sha256(path)[:16]

    def _read(self, path: epath.Path) -> Any:
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as e:
            raise DataError(f"{path} cannot be read: {_line(e)}; {self.again}") from e

    def verify(self, manifest: dict, *, part: tuple[int, int] | None) -> None:
        """Every shard is there and of its size; with `part` (i, n) every n-th from the
        i-th has its digest too, under a bar.

        Raises:
          DataError: naming the shard.
        """
        records = [r for about in manifest["splits"].values() for r in about["shards"]]
        for about in manifest["splits"].values():
            total = sum(r["count"] for r in about["shards"])
            if total != about["count"]:
                raise DataError(
                    f"{self.path}: its shards hold {total} examples of {about['count']}"
                )
        for record in records:
            path = self.path / record["file"]
            try:
                size = path.stat().length
            except OSError as e:
                raise DataError(f"{path} is missing; {self.again}") from e
            if size != record["bytes"]:
                raise DataError(
                    f"{path} has {size} bytes, not {record['bytes']}; {self.again}, "
                    "it mends it"
                )
        own = [] if part is None else records[part[0] :: part[1]]
        for record in _bar(own, f"digests of the {self.what}"):
            path = self.path / record["file"]
            try:
                damaged = sha256(path) != record["sha256"]
            except OSError as e:
                raise DataError(f"{path} cannot be read: {_line(e)}") from e
            if damaged:
                raise DataError(
                    f"{path} is damaged (its digest); {self.again}, it mends it"
                )


class Records:
    """The records of one split, by number. Each one's checksum is looked at on reading."""

    def __init__(self, store: Store, manifest: dict, split: str):
        self._again = store.again
        shards = manifest["splits"][split]["shards"]
        self._files = [
            _File(str(store.path / r["file"]), 0, r["count"], r["count"])
            for r in shards
            if r["count"]
        ]
        self._ends = np.cumsum([f.take for f in self._files])
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> bytes:
        try:
            return self._records[i]
        except (RuntimeError, ValueError, IndexError, OSError) as e:
            raise self.damaged(i, f"cannot be read ({_line(e)})") from e

    def damaged(self, i: int, how: str) -> DataError:
        """The error of a record that is not what it should be."""
        file = self._files[int(np.searchsorted(self._ends, i, "right"))].filename
        return DataError(f"{file}: record {i} {how}; {self._again}, it mends it")


@dataclasses.dataclass(frozen=True)
class _File:
    """A whole shard, as array_record wants to be told of it."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _is_manifest(found: Any, keys: set[str]) -> bool:
    if not isinstance(found, dict) or not keys | {"splits"} <= found.keys():
        return False
    splits = found["splits"]
    return {"train", "eval"} <= splits.keys() and all(
        {"count", "shards"} <= about.keys() for about in splits.values()
    )


@contextlib.contextmanager
def _storing(path: epath.Path) -> Iterator[None]:
    """What a disk refuses, in one line; ArrayRecord raises RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        raise StorageError(f"{path} cannot be written: {_line(e)}") from e


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _bar(records: list[dict], title: str) -> Iterator[dict]:
    """Over shards, in bytes; of a store that is read in a moment nothing is shown."""
    with tqdm(
        total=sum(r["bytes"] for r in records),
        unit="B",
        unit_scale=True,
        desc=title,
        delay=2.0,
        dynamic_ncols=True,
    ) as bar:
        for record in records:
            yield record
            bar.update(record["bytes"])
