"""Batches for (step, process). The position in the data is the step: no other state.

Global batch k holds the same examples in the same rows for any number of processes
and after any resume. Grain shuffles each epoch anew and reads ahead.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain
import numpy as np

from ul.core.errors import DataError
from ul.data import transforms


def examples(
    source, *, shape: tuple[int, ...], flip: bool, seed: int, shuffle: bool
) -> grain.MapDataset:
    """Example by global index: endless and shuffled when training, once otherwise.

    What is random in example i is seeded by i.
    """
    if not len(source):
        raise DataError("the data source is empty")
    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle().repeat()
    dataset = dataset.random_map(functools.partial(transforms.crop, shape=shape))
    return dataset.random_map(transforms.flip) if flip else dataset


def both_ways(dataset: grain.MapDataset) -> grain.MapDataset:
    """N examples, then the N mirrored."""
    return grain.MapDataset.concatenate([dataset, dataset.map(transforms.mirror)])


def in_turn(fixed) -> grain.MapDataset:
    """Examples that never change, once and in order."""
    return grain.MapDataset.source(fixed)


def endless(fixed, seed: int) -> grain.MapDataset:
    """Examples that never change, shuffled anew each epoch: as `examples` orders them.

    They are a source of their own: grain would seed their crops by the epoch too.
    """
    return grain.MapDataset.source(fixed).seed(seed).shuffle().repeat()


def assemble(dataset, indices, rows, total: int) -> dict[str, np.ndarray]:
    """Rows of a batch, of images or of latents; `total` rows are drawn together."""
    return _stack([dataset[int(i)] for i in indices], rows, total)


def _stack(found: list[dict], rows, total: int) -> dict[str, np.ndarray]:
    fields = {name: np.stack([f[name] for f in found]) for name in found[0]}
    return fields | {
        "label": fields["label"].astype(np.int32),
        "row": np.asarray(rows, np.int32),
        "stratum": np.asarray(rows, np.float32) / np.float32(total),
    }


def train_batches(
    dataset: grain.MapDataset,
    *,
    batch_size: int,
    start: int,
    stop: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of steps start .. stop - 1: `rows` of each global batch, or all of it."""
    rows = np.arange(batch_size) if rows is None else rows

    def batch(k: int):
        return assemble(dataset, k * batch_size + rows, rows, batch_size)

    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.range(start, stop).map(batch).to_iter_dataset(ahead))


def eval_batches(
    dataset: grain.MapDataset, *, batch_size: int, num_examples: int
) -> Iterator[dict[str, np.ndarray]]:
    """The first `num_examples` examples in order, each once; the last batch is shorter.

    `row` is the example's index, so what an example draws does not depend on the
    batch size.
    """
    total = min(num_examples, len(dataset))
    for first in range(0, total, batch_size):
        rows = np.arange(first, min(first + batch_size, total))
        yield assemble(dataset, rows, rows, total)


def ahead(get: Callable[[int], Any], count: int, *, threads: int) -> Iterator[Any]:
    """get(0) .. get(count - 1) in order, by as many threads at once, a few ahead."""
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16 * threads)
    return iter(grain.MapDataset.range(count).map(get).to_iter_dataset(reading))


def in_order(
    dataset: grain.MapDataset, indices, *, batch_size: int, threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Examples at `indices` as batches, in order; `row` is the example's index.

    They are read ahead one by one: large batches are not held twice.
    """

    rest = ahead(lambda j: dataset[int(indices[j])], len(indices), threads=threads)
    first = 0
    while part := list(itertools.islice(rest, batch_size)):
        yield _stack(part, indices[first : first + len(part)], len(dataset))
        first += len(part)


def fingerprint(dataset: grain.MapDataset, batch_size: int, probes: int = 8) -> str:
    """A digest of examples as training gets them: sixteen hex digits.

    It differs when the files, their order, the shuffling or the augmentation do.
    """
    return _digest(dataset, range(0, probes * batch_size, batch_size))


def fixed_fingerprint(dataset: grain.MapDataset, probes: int = 32) -> str:
    """Of examples in order: of their number and of some, at no regular distance."""
    count = len(dataset)
    return _digest(dataset, np.random.default_rng(count).integers(count, size=probes))


def _digest(dataset: grain.MapDataset, indices: Iterable[int]) -> str:
    digest = hashlib.sha256(str(len(dataset)).encode())
    for i in indices:
        found = dict(dataset[int(i)])
        label = int(found.pop("label"))
        for _, value in sorted(found.items()):
            digest.update(np.ascontiguousarray(value).tobytes())
        digest.update(str(label).encode())
    return digest.hexdigest()[:16]
