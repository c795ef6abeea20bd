"""A cache of latents: shards (shards.py) of both splits, and statistics.

Record i of a split is i (int64), its label (int32) and z_clean, little-endian; of clips
whose first frames are given, the latent of those too.
"""

import dataclasses
import math
import struct
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError, NonFiniteError
from ul.data import record_shards
from ul.data.record_shards import Shard, Store

DTYPES = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("<f4"),
}
HEAD = struct.Struct("<qi")


def store(where: epath.PathLike) -> Store:
    """The cache at `where`, there or to be written."""
    return Store(epath.Path(where), "cache of latents", "launch.encode")


def plan(identity: dict) -> list[Shard]:
    """All shards of a cache, split by split."""
    counts = {split: about["count"] for split, about in identity["splits"].items()}
    return record_shards.plan(counts, identity["shard_examples"])


def write(
    to: Store, shard: Shard, batches: Iterable[dict[str, np.ndarray]], dtype: str
) -> dict:
    """One shard of batches with `row`, `label` and float32 `z_clean`, perhaps `given`;
    its record.

    Raises:
      NonFiniteError: the encoder gave NaN or infinity. ConfigError: `dtype` cannot hold
        its latents. StorageError: the cache cannot be written.
    """
    sums = _Sums()

    def records():
        for batch in batches:
            z = stored(batch["z_clean"], dtype)
            sums.add(z)
            both = [z, *(stored(batch[k], dtype) for k in ("context",) if k in batch)]
            for row, label, *parts in zip(
                batch["row"], batch["label"], *both, strict=True
            ):
                content = b"".join(part.tobytes() for part in parts)
                yield HEAD.pack(int(row), int(label)) + content

    def about():
        if sums.count != shard.count:
            raise DataError(
                f"{shard.name}: {sums.count} examples came, not {shard.count}; the data "
                f"changed while they were encoded; {to.again}"
            )
        return {"sums": sums.plain()}

    return to.write(shard, records(), about)


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


def finish(to: Store, identity: dict, records: list[dict]) -> dict:
    """Write the manifest of shards that all are there, in their order."""
    splits, shape = {}, identity["latent_shape"]
    for split, about in identity["splits"].items():
        own = [r for r in records if r["file"].startswith(f"{split}-")]
        values = about["count"] * math.prod(shape[:-1])
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
    to.finish(manifest)
    return manifest


def load(cache: Store) -> tuple[dict, str]:
    """A cache's manifest, and a digest of it that names the cache. Raises as Store.load."""
    return cache.load({"encoder", "data", "latent_shape", "dtype"})


def check(cache: Store, manifest: dict, wanted: dict) -> None:
    """The cache is of this encoder and these examples.

    Raises:
      ConfigError: it is not; with both sides.
    """
    differences = unlike(manifest, wanted)
    if differences:
        raise ConfigError(
            f"latents: {cache.path} does not fit this run ({'; '.join(differences)}); "
            "undo the change, or encode again into another directory"
        )


def unlike(there: dict, here: dict) -> list[str]:
    """What of two caches' identities differs, one phrase each; the encoder's place may."""
    keys = [k for k in ("latent_shape", "dtype", "shard_examples") if k in here]
    pairs = [(key, there[key], here[key]) for key in keys]
    pairs.append(
        ("context_frames", *(c.get("context_frames", 0) for c in (there, here)))
    )
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


class Latents:
    """One split of a cache as a source: item i is {"z_clean": [*grid, c], "label": int},
    and "context" as z_clean where first frames are."""

    def __init__(self, cache: Store, manifest: dict, split: str):
        self._records = record_shards.Records(cache, manifest, split)
        self._shape = tuple(manifest["latent_shape"])
        self._dtype = DTYPES[manifest["dtype"]]
        self._names = (
            "z_clean",
            *(("context",) if "context_frames" in manifest else ()),
        )
        numbers = len(self._names) * int(np.prod(self._shape))
        self._bytes = HEAD.size + numbers * self._dtype.itemsize

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i) -> dict[str, Any]:
        i = int(i)
        record = self._records[i]
        index, label = (
            HEAD.unpack_from(record) if len(record) == self._bytes else (-1, 0)
        )
        if index != i:
            raise self._records.damaged(i, "is another")
        values = np.frombuffer(record, self._dtype, offset=HEAD.size)
        parts = values.reshape(len(self._names), *self._shape)
        return dict(zip(self._names, parts, strict=True)) | {"label": label}


@dataclasses.dataclass(frozen=True)
class Cache:
    """Cached latents of both splits, as examples. `provenance`: what a workdir remembers."""

    train: Any
    held_out: Any
    provenance: dict[str, Any]
