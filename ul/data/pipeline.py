"""Batches as a function of the step and the process; there is no other state.

Global batch k holds the same examples in the same rows for any number of processes and
after any resume. Grain shuffles each epoch differently and reads ahead.
"""

import concurrent.futures
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from ul.core.errors import DataError
from ul.data import transforms


def make_dataset(
    source, *, shape: tuple[int, ...], flip: bool, seed: int, shuffle: bool
) -> grain.MapDataset:
    """Return the randomly cropped, and with `flip` randomly mirrored, images of a source.

    With `shuffle` the dataset is endless, and each epoch has another order and other
    crops; otherwise it has each example once, in order. The index of an example in the
    dataset seeds its crop and flip.
    """
    if not len(source):
        raise DataError("The data source must have at least one example; it is empty.")
    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle().repeat()
    crop = functools.partial(transforms.random_crop, shape=shape)
    dataset = dataset.random_map(crop)
    return dataset.random_map(transforms.random_flip) if flip else dataset


def append_mirrored(dataset: grain.MapDataset) -> grain.MapDataset:
    """Return the N examples of a dataset followed by the N mirrored ones."""
    mirrored = dataset.map(transforms.flip_left_right)
    return grain.MapDataset.concatenate([dataset, mirrored])


def sequential_dataset(examples) -> grain.MapDataset:
    """Return fixed examples once, in order."""
    return grain.MapDataset.source(examples)


def shuffled_dataset(examples, seed: int) -> grain.MapDataset:
    """Return fixed examples endlessly, each epoch in another order, that of `make_dataset`.

    They become a source of their own, because Grain would let the epoch reseed the crops of
    a dataset.
    """
    return grain.MapDataset.source(examples).seed(seed).shuffle().repeat()


def make_batch(dataset, indices, rows, total: int) -> dict[str, np.ndarray]:
    """Return the examples at `indices` as the given rows of a batch of `total` rows."""
    return _stack([dataset[int(i)] for i in indices], rows, total)


def _stack(examples: list[dict], rows, total: int) -> dict[str, np.ndarray]:
    # Whether an image was mirrored matters only where the flip is deferred.
    names = [name for name in examples[0] if name != "mirrored"]
    fields = {name: np.stack([e[name] for e in examples]) for name in names}
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
    """Return the batches of steps start .. stop - 1, or only `rows` of each global batch.

    Images are not mirrored yet; `mirrored` [B] tells the training step which to mirror. The
    threads read parts of batches ahead, so that several work on one batch of large
    examples, and the bytes that are read ahead are limited.
    """
    rows = np.arange(batch_size) if rows is None else rows
    if start >= stop:
        return iter(())
    plan = plan_reading(
        _num_bytes(dataset[int(start * batch_size + rows[0])]), len(rows), threads
    )

    def part(number: int) -> list[dict]:
        step, i = divmod(number, plan.parts)
        own = rows[i * plan.part_rows : (i + 1) * plan.part_rows]
        indices = ((start + step) * batch_size + row for row in own)
        return [transforms.defer_flip(dataset[int(index)]) for index in indices]

    def assemble(parts: Sequence[list[dict]]) -> dict[str, np.ndarray]:
        examples = [e for p in parts for e in p]
        batch = _stack(examples, rows, batch_size)
        if "image" in batch:
            batch["mirrored"] = np.asarray([e["mirrored"] for e in examples])
        return batch

    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=plan.parts_ahead
    )
    numbers = grain.MapDataset.range((stop - start) * plan.parts)
    parts = numbers.map(part).to_iter_dataset(options)
    batches = parts.batch(plan.parts, batch_fn=assemble)
    if plan.batches_ahead:
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches, prefetch_buffer_size=plan.batches_ahead
        )
    return iter(batches)


# At most this much is read ahead, in parts of batches and in whole batches.
MAX_PARTS_BYTES = 2**30
MAX_BATCH_BYTES = 2**28
# Smaller parts would cost more time in queues than they save.
MIN_PART_BYTES = 2**20


class ReadingPlan(NamedTuple):
    """The parts of `part_rows` examples in a batch, and the parts and batches read ahead."""

    part_rows: int
    parts: int
    parts_ahead: int
    batches_ahead: int


def plan_reading(example_bytes: int, num_rows: int, threads: int) -> ReadingPlan:
    """Return how to read batches of `num_rows` examples of this size with these threads."""
    part_rows = min(max(MIN_PART_BYTES // example_bytes, 1), num_rows)
    parts = -(-num_rows // part_rows)
    affordable = MAX_PARTS_BYTES // (part_rows * example_bytes)
    parts_ahead = max(min(max(4 * threads, parts), affordable), 1)
    batches_ahead = int(num_rows * example_bytes <= MAX_BATCH_BYTES)
    return ReadingPlan(part_rows, parts, parts_ahead, batches_ahead)


def _num_bytes(example: dict) -> int:
    return sum(np.asarray(value).nbytes for value in example.values())


def eval_batches(
    dataset: grain.MapDataset, *, batch_size: int, num_examples: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the first `num_examples` examples in order; the last batch may be shorter.

    `row` is the index of the example, so its noise does not depend on the batch size.
    """
    total = min(num_examples, len(dataset))
    for first in range(0, total, batch_size):
        rows = np.arange(first, min(first + batch_size, total))
        yield make_batch(dataset, rows, rows, total)


def prefetch(get: Callable[[int], Any], count: int, *, threads: int) -> Iterator[Any]:
    """Return get(0) .. get(count - 1) in order, computed ahead by several threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16 * threads)
    return iter(grain.MapDataset.range(count).map(get).to_iter_dataset(options))


def read_ahead(values: Iterator[Any]) -> Iterator[Any]:
    """Yield the values of an iterator, of which a thread computes the next one meanwhile."""
    end = object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, values, end)
        while (value := ahead.result()) is not end:
            ahead = pool.submit(next, values, end)
            yield value


def batches_at(
    dataset: grain.MapDataset, indices, *, batch_size: int, threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the examples at `indices` as batches, in order; `row` is an example's index.

    Examples, not batches, are read ahead, so that no two large batches are in memory.
    """
    examples = prefetch(
        lambda j: dataset[int(indices[j])], len(indices), threads=threads
    )
    first = 0
    while part := list(itertools.islice(examples, batch_size)):
        yield _stack(part, indices[first : first + len(part)], len(dataset))
        first += len(part)


def fingerprint(dataset: grain.MapDataset, batch_size: int, num_probes: int = 8) -> str:
    """Return a digest, 16 hex digits, of the first example of the first batches.

    It differs if the files, their order, the shuffling or the augmentation differ.
    """
    return _digest(dataset, range(0, num_probes * batch_size, batch_size))


def fixed_fingerprint(dataset: grain.MapDataset, num_probes: int = 32) -> str:
    """Return a digest, 16 hex digits, of a fixed dataset: its length and some examples.

    The examples are a fixed random choice, because regular distances might miss a pattern.
    """
    count = len(dataset)
    indices = np.random.default_rng(count).integers(count, size=num_probes)
    return _digest(dataset, indices)


def _digest(dataset: grain.MapDataset, indices: Iterable[int]) -> str:
    digest = hashlib.sha256(str(len(dataset)).encode())
    for i in indices:
        example = dict(dataset[int(i)])
        example.pop("mirrored", None)
        label = int(example.pop("label"))
        for _, value in sorted(example.items()):
            digest.update(np.ascontiguousarray(value).tobytes())
        digest.update(str(label).encode())
    return digest.hexdigest()[:16]
