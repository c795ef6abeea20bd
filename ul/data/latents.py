"""A cache of latents: ArrayRecord shards, and a manifest that is written last.

    begun.json                          what the cache is to hold: its identity
    train-00003-of-00016.array_record   the records of one shard
    train-00003-of-00016.json           its digest, count and sums, written after it
    manifest.json                       the identity, every shard, statistics

Record i of a split is i (int64), its label (int32) and z_clean, little-endian. Where a
shard lies does not depend on who writes it: any number of processes gives the same bytes.
"""

import contextlib
import dataclasses
import json
import logging
import math
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from array_record.python import array_record_data_source, array_record_module
from etils import epath
from tqdm import tqdm

from ul.core.errors import ConfigError, DataError, NonFiniteError, StorageError
from ul.core.files import sha256, write_atomic

log = logging.getLogger("ul")

DTYPES = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("<f4"),
}
HEAD = struct.Struct("<qi")
SHARD, AGAIN = ".array_record", "run the same launch.encode again"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Examples first .. first + count - 1 of a split; number `index` of `of`."""

    split: str
    index: int
    of: int
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}"


def shards(identity: dict) -> list[Shard]:
    """All shards of a cache, split by split."""
    found, size = [], identity["shard_examples"]
    for split, about in identity["splits"].items():
        of = math.ceil(about["count"] / size)
        for i in range(of):
            count = min(size, about["count"] - i * size)
            found.append(Shard(split, i, of, i * size, count))
    return found


def begin(out: epath.Path, identity: dict) -> None:
    """Say what `out` is to hold, or check that it is what was begun there.

    Raises:
      ConfigError: it is another cache.
    """
    path = out / "begun.json"
    if path.exists():
        differences = _unlike(_read(path), identity)
        if differences:
            raise ConfigError(
                f"{out} holds, or was to hold, other latents ({'; '.join(differences)}); "
                "choose another --out or delete it"
            )
    else:
        write_atomic(path, json.dumps(identity, indent=2))


def finished(out: epath.Path, shard: Shard) -> dict | None:
    """The record of a shard that is whole and undamaged; None if it must be written."""
    path = out / f"{shard.name}.json"
    try:
        record = json.loads(path.read_text())
        return record if sha256(out / record["file"]) == record["sha256"] else None
    except (OSError, ValueError, KeyError):
        return None


def write(
    out: epath.Path,
    shard: Shard,
    batches: Iterable[dict[str, np.ndarray]],
    dtype: str,
) -> dict:
    """One shard of batches with `row`, `label` and float32 `z_clean`; its record.

    Raises:
      NonFiniteError: the encoder gave NaN or infinity. ConfigError: `dtype` cannot hold
        its latents. StorageError: `out` cannot be written.
    """
    sums, end = _Sums(), out / f"{shard.name}{SHARD}"
    with tempfile.TemporaryDirectory() as scratch:
        local = "://" not in str(out)
        part = out / f".{shard.name}.part" if local else epath.Path(scratch) / "part"
        with _storing(end):
            # Latents hardly compress; a group of one record is read alone.
            writer = array_record_module.ArrayRecordWriter(
                str(part), "group_size:1,uncompressed"
            )
        for batch in batches:
            z = stored(batch["z_clean"], dtype)
            sums.add(z)
            with _storing(end):
                for row, label, one in zip(
                    batch["row"], batch["label"], z, strict=True
                ):
                    writer.write(HEAD.pack(int(row), int(label)) + one.tobytes())
        with _storing(end):
            writer.close()
            digest, size = sha256(part), part.stat().length
            part.replace(end) if local else part.copy(end, overwrite=True)
    if sums.count != shard.count:
        raise DataError(
            f"{shard.name}: {sums.count} examples came, not {shard.count}; the data "
            f"changed while they were encoded; {AGAIN}"
        )
    record = {
        "file": end.name,
        "count": shard.count,
        "bytes": size,
        "sha256": digest,
        "sums": sums.plain(),
    }
    write_atomic(out / f"{shard.name}.json", json.dumps(record))
    return record


@contextlib.contextmanager
def _storing(path: epath.Path) -> Iterator[None]:
    """What a disk refuses, in one line; ArrayRecord raises RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        raise StorageError(f"{path} cannot be written: {_line(e)}") from e


def stored(z: np.ndarray, dtype: str) -> np.ndarray:
    """float32 latents as the cache keeps them. Raises as `write`."""
    if not np.isfinite(z).all():
        raise NonFiniteError(
            "the encoder's latents are not finite; choose another stage1.step"
        )
    with np.errstate(over="ignore"):  # said below
        kept = z.astype(DTYPES[dtype])
    if not np.isfinite(kept.astype(np.float32)).all():
        raise ConfigError(
            f"latent_dtype {dtype} cannot hold latents of up to {np.abs(z).max():.4g}; "
            "set it to bfloat16 or float32"
        )
    return kept


class _Sums:
    """Per channel, in float64 and in the order of the examples: the same every time."""

    def __init__(self):
        self.count, self._parts = 0, []

    def add(self, z: np.ndarray) -> None:
        z = z.astype(np.float64).reshape(len(z), -1, z.shape[-1])
        self.count += len(z)
        self._parts.append((z.sum((0, 1)), np.square(z).sum((0, 1)), z.min(), z.max()))

    def plain(self) -> dict:
        total, square, low, high = zip(*self._parts, strict=True)
        return {
            "sum": np.sum(total, 0).tolist(),
            "square": np.sum(square, 0).tolist(),
            "min": float(min(low)),
            "max": float(max(high)),
        }


def finish(out: epath.Path, identity: dict, records: list[dict]) -> dict:
    """Write the manifest of shards that all are there, in their order."""
    splits, shape = {}, identity["latent_shape"]
    for split, about in identity["splits"].items():
        own = [r for r in records if r["file"].startswith(f"{split}-")]
        values = about["count"] * shape[0] * shape[1]
        sums = [r["sums"] for r in own]
        mean = np.sum([s["sum"] for s in sums], 0) / values
        square = np.sum([s["square"] for s in sums], 0) / values
        splits[split] = about | {
            "statistics": {
                "mean": mean.tolist(),
                "std": np.sqrt(np.maximum(square - np.square(mean), 0.0)).tolist(),
                "min": min(s["min"] for s in sums),
                "max": max(s["max"] for s in sums),
            },
            "shards": [{k: v for k, v in r.items() if k != "sums"} for r in own],
        }
    manifest = identity | {"splits": splits}
    write_atomic(out / "manifest.json", json.dumps(manifest, indent=2))
    return manifest


def load(where: str) -> tuple[dict, str]:
    """A cache's manifest, and a digest of it that names the cache.

    Raises:
      DataError: there is none, or it is half written.
    """
    out = epath.Path(where)
    if not (out / "manifest.json").exists():
        raise DataError(
            f"{where} is half written, it has no manifest.json; {AGAIN}"
            if (out / "begun.json").exists()
            else f"latents: {where} is no cache of latents; write one with launch.encode"
        )
    manifest = _read(out / "manifest.json")
    if not {"encoder", "data", "latent_shape", "dtype", "splits"} <= manifest.keys():
        raise DataError(f"{where}/manifest.json is of no cache of latents")
    return manifest, sha256(out / "manifest.json")[:16]


def _read(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {_line(e)}; {AGAIN}") from e


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def check(where: str, manifest: dict, wanted: dict) -> None:
    """The cache is of this encoder and these examples.

    Raises:
      ConfigError: it is not; with both sides.
    """
    differences = _unlike(manifest, wanted)
    if differences:
        raise ConfigError(
            f"latents: {where} does not fit this run ({'; '.join(differences)}); "
            "undo the change, or encode again into another directory"
        )


def _unlike(there: dict, here: dict) -> list[str]:
    """What of two caches' identities differs, one phrase each; the encoder's place may."""
    keys = [k for k in ("latent_shape", "dtype", "shard_examples") if k in here]
    pairs = [(key, there[key], here[key]) for key in keys]
    examples = [
        (f"{split} {key}", there["splits"][split][key], about[key])
        for split, about in here["splits"].items()
        for key in ("count", "fingerprint")
    ]
    if any(a != b for _, a, b in examples):
        data = there["data"]
        examples += [(f"data.{k}", data.get(k), v) for k, v in here["data"].items()]
    a, b = there["encoder"], here["encoder"]
    if a["encoder"] != b["encoder"]:
        named = "{encoder} ({workdir} step {step}, {weights})"
        pairs.append(("encoder", named.format(**a), named.format(**b)))
    return [f"{k}: {a} there, {b} here" for k, a, b in pairs + examples if a != b]


def verify(where: str, manifest: dict, *, part: tuple[int, int] | None) -> None:
    """Every shard is there and of its size; with `part` (i, n) every n-th from the i-th
    has its digest too, under a bar.

    Raises:
      DataError: naming the shard.
    """
    out = epath.Path(where)
    records = [r for about in manifest["splits"].values() for r in about["shards"]]
    for about in manifest["splits"].values():
        total = sum(r["count"] for r in about["shards"])
        if total != about["count"]:
            raise DataError(
                f"{where}: its shards hold {total} examples of {about['count']}"
            )
    for record in records:
        path = out / record["file"]
        try:
            size = path.stat().length
        except OSError as e:
            raise DataError(f"{path} is missing; {AGAIN}") from e
        if size != record["bytes"]:
            raise DataError(
                f"{path} has {size} bytes, not {record['bytes']}; {AGAIN}, it mends it"
            )
    own = [] if part is None else records[part[0] :: part[1]]
    for record in _bar(own):
        path = out / record["file"]
        try:
            damaged = sha256(path) != record["sha256"]
        except OSError as e:
            raise DataError(f"{path} cannot be read: {_line(e)}") from e
        if damaged:
            raise DataError(f"{path} is damaged (its digest); {AGAIN}, it mends it")


def _bar(records: list[dict]) -> Iterator[dict]:
    """Over shards, in bytes; of a cache that is read in a moment nothing is shown."""
    total = sum(r["bytes"] for r in records)
    title = "digests of latents"
    with tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        desc=title,
        delay=2.0,
        dynamic_ncols=True,
    ) as bar:
        for record in records:
            yield record
            bar.update(record["bytes"])


@dataclasses.dataclass(frozen=True)
class _File:
    """A whole shard, as array_record wants to be told of it."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Latents:
    """One split of a cache as a source: item i is {"z_clean": [h, w, c], "label": int}.

    A record's own checksum is looked at whenever it is read.
    """

    def __init__(self, where: str, manifest: dict, split: str):
        self._files = [
            _File(str(epath.Path(where) / r["file"]), 0, r["count"], r["count"])
            for r in manifest["splits"][split]["shards"]
        ]
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)
        self._shape = tuple(manifest["latent_shape"])
        self._dtype = DTYPES[manifest["dtype"]]
        self._bytes = HEAD.size + int(np.prod(self._shape)) * self._dtype.itemsize
        self._size = manifest["shard_examples"]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i) -> dict[str, Any]:
        i = int(i)
        file = self._files[i // self._size].filename
        try:
            record = self._records[i]
        except (RuntimeError, ValueError, IndexError, OSError) as e:
            raise DataError(
                f"{file}: record {i} cannot be read ({_line(e)}); {AGAIN}, it mends it"
            ) from e
        index, label = (
            HEAD.unpack_from(record) if len(record) == self._bytes else (-1, 0)
        )
        if index != i:
            raise DataError(f"{file}: record {i} is another; {AGAIN}, it mends it")
        z = np.frombuffer(record, self._dtype, offset=HEAD.size)
        return {"z_clean": z.reshape(self._shape), "label": label}


@dataclasses.dataclass(frozen=True)
class Cache:
    """Cached latents of both splits, as examples. `facts`: what a workdir remembers."""

    train: Any
    held_out: Any
    facts: dict[str, Any]
