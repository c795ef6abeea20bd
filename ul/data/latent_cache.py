"""The latent cache on disk: record shards of both splits, and statistics of the latents.

Record i of a split is i (int64), the label (int32) and `z_clean`, little-endian; for clips
with context frames it ends with the latent of these frames.
"""

import dataclasses
import math
import struct
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError
from ul.data import record_shards, storage_dtype
from ul.data.record_shards import RecordReader, Shard, ShardStore

DTYPES = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("<f4"),
}
HEADER = struct.Struct("<qi")


def open_store(path: epath.PathLike) -> ShardStore:
    """Return the latent cache in the directory `path`, which may still have to be written."""
    return ShardStore(epath.Path(path), "latent cache", "python -m ul encode")


def plan_groups(identity: dict) -> list[tuple[Shard, ...]]:
    """Return the shards of a cache, split by split; those of the same images are together.

    If a split has two orientations, its shards are pairs: the first has images, the second
    their mirror images. No shard has both.
    """
    groups = []
    for split, about in identity["splits"].items():
        orientations = about.get("orientations", 1)
        count = about["count"] // orientations
        plan = record_shards.plan_shards({split: count}, identity["shard_examples"])
        for shard in plan:
            group = (
                dataclasses.replace(
                    shard,
                    index=shard.index + i * len(plan),
                    num_shards=orientations * len(plan),
                    first=shard.first + i * count,
                )
                for i in range(orientations)
            )
            groups.append(tuple(group))
    return groups


def plan_shards(identity: dict) -> list[Shard]:
    """Return the shards of `plan_groups` in the order of their examples."""
    names = list(identity["splits"])
    shards = (shard for group in plan_groups(identity) for shard in group)
    return sorted(shards, key=lambda s: (names.index(s.split), s.index))


def write_shard(
    store: ShardStore,
    shard: Shard,
    batches: Iterable[dict[str, np.ndarray]],
    dtype: str,
) -> dict:
    """Write one shard and return its summary.

    A batch has `row`, `label`, float32 `z_clean` and perhaps `context`.

    Raises:
      NonFiniteError: the encoder gave NaN or infinity.
      ConfigError: `dtype` cannot hold the latents.
      DataError: there are fewer or more examples than the shard should have.
      StorageError: the cache cannot be written.
    """
    sums = _ChannelSums()

    def records():
        for batch in batches:
            z = to_storage_dtype(batch["z_clean"], dtype)
            sums.add(z)
            latents = [z]
            if "context" in batch:
                latents.append(to_storage_dtype(batch["context"], dtype))
            for row, label, *parts in zip(
                batch["row"], batch["label"], *latents, strict=True
            ):
                content = b"".join(part.tobytes() for part in parts)
                yield HEADER.pack(int(row), int(label)) + content

    def more_fields():
        if sums.count != shard.count:
            raise DataError(
                f"The shard {shard.name} must have {shard.count} examples; {sums.count} "
                "were encoded, so the data changed in the meantime. "
                f"{store.rerun_to('encode them again')}"
            )
        return {"sums": sums.to_json()}

    return store.write_shard(shard, records(), more_fields)


def to_storage_dtype(z: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 latents in the dtype in which the cache stores them.

    Raises:
      NonFiniteError, ConfigError: as `write_shard`.
    """
    return storage_dtype.cast_to_storage(
        z,
        DTYPES[dtype],
        name="The encoder's latents",
        if_nonfinite="Choose another stage1.step.",
        if_overflow="Set latent_dtype to bfloat16 or float32.",
    )


class _ChannelSums:
    """Sums per channel of all latents of a shard.

    They are taken in float64 and in the order of the batches, so they are reproducible.
    """

    def __init__(self):
        self.count, self._batches = 0, []

    def add(self, z: np.ndarray) -> None:
        z = z.astype(np.float64).reshape(len(z), -1, z.shape[-1])
        self.count += len(z)
        sums = z.sum((0, 1)), np.square(z).sum((0, 1))
        self._batches.append((*sums, z.min(), z.max()))

    def to_json(self) -> dict:
        total, square, low, high = zip(*self._batches, strict=True)
        return {
            "sum": np.sum(total, 0).tolist(),
            "square": np.sum(square, 0).tolist(),
            "min": float(min(low)),
            "max": float(max(high)),
        }


def write_manifest(store: ShardStore, identity: dict, summaries: list[dict]) -> dict:
    """Write the manifest of a cache whose shards are all written, and return it."""
    values_per_channel = math.prod(identity["latent_shape"][:-1])

    def split_fields(own: list[dict]) -> dict:
        values = sum(summary["count"] for summary in own) * values_per_channel
        sums = [summary["sums"] for summary in own]
        mean = np.sum([s["sum"] for s in sums], 0) / values
        square = np.sum([s["square"] for s in sums], 0) / values
        return {
            "statistics": {
                "mean": mean.tolist(),
                "std": np.sqrt(np.maximum(square - np.square(mean), 0.0)).tolist(),
                "min": min(s["min"] for s in sums),
                "max": max(s["max"] for s in sums),
            }
        }

    manifest = record_shards.build_manifest(identity, summaries, split_fields)
    store.write_manifest(manifest)
    return manifest


def load_manifest(store: ShardStore) -> tuple[dict, str]:
    """Return a cache's manifest and a digest that identifies it.

    Raises:
      DataError: as `ShardStore.load_manifest`.
    """
    return store.load_manifest({"encoder", "data", "latent_shape", "dtype"})


def check_identity(store: ShardStore, manifest: dict, requested: dict) -> None:
    """Check that a cache holds the latents of this encoder and of these examples.

    Raises:
      ConfigError: it holds others; the message has both sides.
    """
    if phrases := differences(manifest, requested):
        raise ConfigError(
            f"The latent cache {store.path} does not fit this run ({'; '.join(phrases)}). "
            "Undo the change, or encode again into another directory."
        )


def differences(stored: dict, requested: dict) -> list[str]:
    """Return one phrase for each difference between the identities of two caches.

    Two encoders are the same if their digests are, whatever their workdirs. The settings of
    the data are compared only to explain why the examples differ.
    """
    keys = ("latent_shape", "dtype", "shard_examples", "shard_plan")
    phrases = record_shards.differences(
        {"context_frames": 0} | stored,
        {key: requested[key] for key in keys if key in requested}
        | {"context_frames": requested.get("context_frames", 0)},
    )
    a, b = stored["encoder"], requested["encoder"]
    if a["encoder"] != b["encoder"]:
        template = "{encoder} ({workdir} step {step}, {weights})"
        phrases.append(
            record_shards.difference(
                "encoder", template.format(**a), template.format(**b)
            )
        )
    changed_examples = [
        record_shards.difference(f"{split} {key}", stored["splits"][split][key], value)
        for split, about in requested["splits"].items()
        for key, value in about.items()
        if key in ("count", "fingerprint") and stored["splits"][split][key] != value
    ]
    if changed_examples:
        settings = [
            {f"data.{k}": v for k, v in i["data"].items()} for i in (stored, requested)
        ]
        phrases += changed_examples + record_shards.differences(*settings)
    return phrases


class LatentSource:
    """One split of a latent cache as a source.

    Example i has `z_clean`, [*grid, c], and `label`, an int; for clips with context frames
    also `context`, of the shape of `z_clean`.
    """

    def __init__(self, store: ShardStore, manifest: dict, split: str):
        self._records = RecordReader(store, manifest, split)
        self._shape = tuple(manifest["latent_shape"])
        self._dtype = DTYPES[manifest["dtype"]]
        has_context = "context_frames" in manifest
        self._names = ("z_clean", "context") if has_context else ("z_clean",)
        num_values = len(self._names) * math.prod(self._shape)
        self._num_bytes = HEADER.size + num_values * self._dtype.itemsize

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i) -> dict[str, Any]:
        i = int(i)
        record = self._records[i]
        index, label = (
            HEADER.unpack_from(record) if len(record) == self._num_bytes else (-1, 0)
        )
        if index != i:
            raise self._records.damage_error(i, "belongs to another example")
        values = np.frombuffer(record, self._dtype, offset=HEADER.size)
        latents = values.reshape(len(self._names), *self._shape)
        return dict(zip(self._names, latents, strict=True)) | {"label": label}


@dataclasses.dataclass(frozen=True)
class LatentCache:
    """The cached latents of both splits as datasets.

    `latents` are those of the training split, each once and in order. `provenance`
    identifies the cache; the workdir of a run keeps it.
    """

    latents: Any
    train: Any
    held_out: Any
    provenance: dict[str, Any]
