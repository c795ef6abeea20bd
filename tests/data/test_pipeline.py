"""The step alone decides what a batch holds."""

import time

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core.errors import DataError
from ul.data import pipeline
from ul.data.sources.base import FunctionSource
from ul.train import step

N, B = 24, 8
SHAPE = (4, 4, 1)


def get_example(i):
    image = np.arange(30, dtype=np.uint8).reshape(5, 6, 1) + 5 * i
    return {"image": image, "label": i}


def make_source():
    return FunctionSource(N, get_example, N)


def train_dataset(seed=3, flip=True):
    return pipeline.make_dataset(
        make_source(), shape=SHAPE, flip=flip, seed=seed, shuffle=True
    )


def train_batches(start=0, stop=7, seed=3, **settings):
    return list(
        pipeline.train_batches(
            train_dataset(seed), batch_size=B, start=start, stop=stop, **settings
        )
    )


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for k in a:
        np.testing.assert_array_equal(a[k], b[k])


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_global_batch_is_the_same_for_any_number_of_processes(processes):
    rows = np.split(np.arange(B), processes)
    parts = [train_batches(rows=own) for own in rows]
    for k, batch in enumerate(train_batches()):
        joined = {n: np.concatenate([p[k][n] for p in parts]) for n in batch}
        assert_equal(joined, batch)


@pytest.mark.parametrize("start", [1, 3, 6])
def test_resuming_at_any_step_continues_with_the_same_batches(start):
    resumed = train_batches(start=start)
    for a, b in zip(resumed, train_batches()[start:], strict=True):
        assert_equal(a, b)


def test_reading_ahead_with_more_threads_changes_nothing():
    one, four = train_batches(threads=1), train_batches(threads=4)
    for a, b in zip(one, four, strict=True):
        assert_equal(a, b)


def test_each_epoch_has_every_example_once_in_another_order():
    labels = np.concatenate([b["label"] for b in train_batches(stop=2 * N // B)])
    first, second = labels[:N], labels[N:]
    assert sorted(first) == sorted(second) == list(range(N))
    assert list(first) != list(second) and list(first) != list(range(N))


def test_the_seed_decides_the_order():
    assert [b["label"].tolist() for b in train_batches(seed=3)] != [
        b["label"].tolist() for b in train_batches(seed=4)
    ]


def test_augmentation_is_fixed_by_the_global_index():
    a, b = train_dataset(), train_dataset()
    for i in (0, 5, N + 5):
        np.testing.assert_array_equal(a[i]["image"], b[i]["image"])
    # The same example has another crop and flip in another epoch.
    label = a[0]["label"]
    crops = {a[i]["image"].tobytes() for i in range(8 * N) if a[i]["label"] == label}
    assert len(crops) > 4


def test_rows_and_strata_are_positions_in_the_global_batch():
    part = train_batches(rows=np.arange(4, 8))[0]
    np.testing.assert_array_equal(part["row"], [4, 5, 6, 7])
    np.testing.assert_allclose(part["stratum"], np.arange(4, 8) / 8)
    assert part["image"].dtype == np.uint8


def test_evaluation_gets_every_example_once_in_order():
    held_out = fixed_dataset()
    batches = list(pipeline.eval_batches(held_out, batch_size=10, num_examples=23))
    assert [len(b["row"]) for b in batches] == [10, 10, 3]
    np.testing.assert_array_equal(
        np.concatenate([b["label"] for b in batches]), range(23)
    )
    np.testing.assert_allclose(batches[2]["stratum"], np.arange(20, 23) / 23)


def test_a_data_error_in_a_reading_thread_reaches_the_trainer_unchanged():
    def fail(i):
        raise DataError("three of four images are broken")

    broken = pipeline.make_dataset(
        FunctionSource(N, fail, N), shape=SHAPE, flip=False, seed=0, shuffle=True
    )
    with pytest.raises(DataError, match="three of four"):
        next(pipeline.train_batches(broken, batch_size=B, start=0, stop=2))


def test_an_empty_source_is_refused():
    empty = FunctionSource(0, get_example, N)
    with pytest.raises(DataError, match="at least one example"):
        pipeline.make_dataset(empty, shape=SHAPE, flip=False, seed=0, shuffle=True)


def test_the_fingerprint_depends_on_order_augmentation_and_images():
    def brighter(i):
        example = get_example(i)
        return example | {"image": example["image"] + 1}

    original = pipeline.fingerprint(train_dataset(), B)
    assert original == pipeline.fingerprint(train_dataset(), B)
    others = [
        train_dataset(seed=4),
        train_dataset(flip=False),
        pipeline.make_dataset(
            FunctionSource(N, brighter, N), shape=SHAPE, flip=True, seed=3, shuffle=True
        ),
    ]
    assert all(pipeline.fingerprint(other, B) != original for other in others)


def fixed_dataset(mirrored=False):
    dataset = pipeline.make_dataset(
        make_source(), shape=SHAPE, flip=False, seed=0, shuffle=False
    )
    return pipeline.append_mirrored(dataset) if mirrored else dataset


def test_fixed_examples_are_the_same_in_every_epoch():
    shuffled = pipeline.shuffled_dataset(fixed_dataset(), 3)
    for epoch in range(3):
        examples = [shuffled[epoch * N + i] for i in range(N)]
        assert sorted(e["label"] for e in examples) == list(range(N))
        for e in examples:
            fixed = fixed_dataset()[e["label"]]
            np.testing.assert_array_equal(e["image"], fixed["image"])
    labels = [[shuffled[e * N + i]["label"] for i in range(N)] for e in range(2)]
    assert labels[0] != labels[1]


def test_every_example_is_followed_by_its_mirror_image_after_all_originals():
    both = fixed_dataset(mirrored=True)
    assert len(both) == 2 * N
    for i in range(N):
        np.testing.assert_array_equal(both[i + N]["image"], both[i]["image"][:, ::-1])
        assert both[i]["label"] == both[i + N]["label"] == i


def test_batches_at_indices_have_each_example_once_in_order():
    batches = list(
        pipeline.batches_at(fixed_dataset(), range(3, 20), batch_size=5, threads=3)
    )
    assert [len(b["row"]) for b in batches] == [5, 5, 5, 2]
    np.testing.assert_array_equal(
        np.concatenate([b["row"] for b in batches]), range(3, 20)
    )
    for b in batches:
        np.testing.assert_array_equal(b["label"], b["row"])


def test_the_step_mirrors_what_the_host_leaves_to_it():
    """The host copies an image in its own order; the device mirrors it."""
    dataset, (batch,) = train_dataset(), train_batches(stop=1)
    expected = np.stack([dataset[i]["image"] for i in range(B)])
    assert 0 < batch["mirrored"].sum() < B
    mirrored = step.mirror_images(batch)
    np.testing.assert_array_equal(mirrored["image"], expected)
    assert mirrored.keys() == batch.keys() - {"mirrored"}
    assert not np.array_equal(batch["image"], expected)
    plain = {"z_clean": np.zeros((B, 2, 2, 1))}
    assert step.mirror_images(plain).keys() == plain.keys()


def test_the_fingerprint_of_fixed_examples_depends_on_their_number_and_images():
    original = pipeline.fixed_fingerprint(fixed_dataset())
    assert original == pipeline.fixed_fingerprint(fixed_dataset())
    assert original != pipeline.fixed_fingerprint(fixed_dataset(mirrored=True))
    shorter = pipeline.sequential_dataset([fixed_dataset()[i] for i in range(N - 1)])
    assert original != pipeline.fixed_fingerprint(shorter)


@pytest.mark.parametrize("part_bytes", [1, 60, 2**20])
def test_batches_do_not_depend_on_the_parts_in_which_they_are_read(
    monkeypatch, part_bytes
):
    """An example here has 16 bytes of pixels and a label of 8."""
    expected = train_batches()
    monkeypatch.setattr(pipeline, "MIN_PART_BYTES", part_bytes)
    for rows in (None, np.arange(1, B, 3)):
        for own, batch in zip(train_batches(rows=rows), expected, strict=True):
            chosen = {k: v if rows is None else v[rows] for k, v in batch.items()}
            assert_equal(own, chosen)
    monkeypatch.setattr(pipeline, "MAX_BATCH_BYTES", 0)
    for own, batch in zip(train_batches(), expected, strict=True):
        assert_equal(own, batch)


@pytest.mark.parametrize(
    ("example_bytes", "num_rows", "threads", "plan"),
    [
        (65, 256, 2, (256, 1, 8, 1)),  # digits: whole batches
        (512 * 512 * 3, 32, 16, (1, 32, 64, 1)),  # ImageNet stage 1 on a TPU host
        (512 * 512 * 3, 2048, 16, (1, 2048, 1365, 0)),  # all of a batch of stage 2
        (32 * 32 * 32 * 2, 2048, 16, (16, 128, 128, 1)),  # its cached latents
    ],
)
def test_what_is_read_ahead_takes_less_than_2_gigabytes(
    example_bytes, num_rows, threads, plan
):
    found = pipeline.plan_reading(example_bytes, num_rows, threads)
    assert found == plan
    ahead = found.parts_ahead * found.part_rows * example_bytes
    # One batch waits, and the next one is complete but for its last part.
    ahead += found.batches_ahead * 2 * num_rows * example_bytes
    assert ahead < 2e9
    assert found.parts * found.part_rows >= num_rows


def test_an_error_of_an_example_reaches_the_loop():
    """It is raised in a thread that reads ahead."""

    def get(i):
        if i == 4 * B + 5:
            raise DataError("too many files are broken")
        return get_example(i)

    dataset = pipeline.sequential_dataset(FunctionSource(1000, get, 1000))
    batches = pipeline.train_batches(dataset, batch_size=B, start=0, stop=20)
    assert len([next(batches) for _ in range(4)]) == 4
    with pytest.raises(DataError, match="too many files are broken"):
        next(batches)


def test_no_more_examples_are_read_ahead_than_planned(monkeypatch):
    read = []

    def get(i):
        read.append(i)
        return get_example(i)

    monkeypatch.setattr(pipeline, "MIN_PART_BYTES", 1)
    monkeypatch.setattr(pipeline, "MAX_PARTS_BYTES", 5 * 38)
    monkeypatch.setattr(pipeline, "MAX_BATCH_BYTES", 0)
    dataset = pipeline.sequential_dataset(FunctionSource(1000, get, 1000))
    batches = pipeline.train_batches(
        dataset, batch_size=B, start=0, stop=100, threads=2
    )
    next(batches)
    time.sleep(0.5)
    # One example tells the size, B make the batch, 5 wait, and each thread has one.
    assert len(read) <= 1 + B + 5 + 2 + 1


BREAKS = (
    Break(
        "a deferred flip that nobody makes up for",
        "ul/data/transforms.py",
        'return {**flip_left_right(example), "mirrored": True}',
        'return {**flip_left_right(example), "mirrored": False}',
        "test_the_step_mirrors_what_the_host_leaves_to_it",
    ),
    Break(
        "a resumed run that begins its data anew",
        "ul/data/pipeline.py",
        "((start + step) * batch_size + row for row in own)",
        "(step * batch_size + row for row in own)",
        "test_resuming_at_any_step_continues_with_the_same_batches",
    ),
    Break(
        "fixed crops drawn again in every epoch",
        "ul/data/pipeline.py",
        "grain.MapDataset.source(examples).seed(seed).shuffle()",
        "examples.seed(seed).shuffle()",
        "test_fixed_examples_are_the_same_in_every_epoch",
    ),
    Break(
        "mirrored examples that are not mirrored",
        "ul/data/pipeline.py",
        "mirrored = dataset.map(transforms.flip_left_right)",
        "mirrored = dataset",
        "test_every_example_is_followed_by_its_mirror_image_after_all_originals",
    ),
    Break(
        "crops that no seed decides",
        "ul/data/transforms.py",
        "first = rng.integers(",
        "first = np.random.default_rng().integers(",
        "test_augmentation_is_fixed_by_the_global_index",
    ),
    Break(
        "a fingerprint of the data without the images",
        "ul/data/pipeline.py",
        "digest.update(np.ascontiguousarray(value).tobytes())",
        "pass",
        "test_the_fingerprint_depends_on_order_augmentation_and_images",
    ),
    Break(
        "strata of a part of the batch instead of the whole",
        "ul/data/pipeline.py",
        "/ np.float32(total)",
        "/ np.float32(len(rows))",
        "test_rows_and_strata_are_positions_in_the_global_batch",
    ),
)
