"""The position in the data is the step: nothing else decides what a batch holds."""

import numpy as np
import pytest

from ul.core.errors import DataError
from ul.data import pipeline
from ul.data.sources.basic import Items

N, B = 24, 8
SHAPE = (4, 4, 1)


def source():
    def get(i):
        image = np.arange(30, dtype=np.uint8).reshape(5, 6, 1) + 5 * i
        return {"image": image, "label": i}

    return Items(N, get, N)


def dataset(seed=3, flip=True):
    return pipeline.examples(source(), shape=SHAPE, flip=flip, seed=seed, shuffle=True)


def batches(start=0, stop=7, seed=3, **where):
    found = pipeline.train_batches(
        dataset(seed), batch_size=B, start=start, stop=stop, **where
    )
    return list(found)


def same(a, b):
    assert a.keys() == b.keys()
    for k in a:
        np.testing.assert_array_equal(a[k], b[k])


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_global_batch_is_the_same_for_any_number_of_processes(processes):
    whole = batches()
    rows = np.split(np.arange(B), processes)
    parts = [batches(rows=own) for own in rows]
    for k, batch in enumerate(whole):
        joined = {n: np.concatenate([p[k][n] for p in parts]) for n in batch}
        same(joined, batch)


@pytest.mark.parametrize("start", [1, 3, 6])
def test_resuming_at_any_step_goes_on_with_the_same_batches(start):
    for a, b in zip(batches(start=start), batches()[start:], strict=True):
        same(a, b)


def test_reading_ahead_with_more_threads_changes_nothing():
    for a, b in zip(batches(threads=1), batches(threads=4), strict=True):
        same(a, b)


def test_every_example_comes_once_an_epoch_in_an_order_of_its_own():
    labels = np.concatenate([b["label"] for b in batches(stop=2 * N // B)])
    first, second = labels[:N], labels[N:]
    assert sorted(first) == sorted(second) == list(range(N))
    assert list(first) != list(second) and list(first) != list(range(N))


def test_the_seed_decides():
    assert [b["label"].tolist() for b in batches(seed=3)] != [
        b["label"].tolist() for b in batches(seed=4)
    ]


def test_augmentation_is_fixed_by_the_global_index():
    a, b = dataset(), dataset()
    for i in (0, 5, N + 5):
        np.testing.assert_array_equal(a[i]["image"], b[i]["image"])
    # The same example is cropped or flipped anew in another epoch.
    label = a[0]["label"]
    crops = {a[i]["image"].tobytes() for i in range(8 * N) if a[i]["label"] == label}
    assert len(crops) > 4


def test_rows_and_strata_are_places_in_the_global_batch():
    part = batches(rows=np.arange(4, 8))[0]
    np.testing.assert_array_equal(part["row"], [4, 5, 6, 7])
    np.testing.assert_allclose(part["stratum"], np.arange(4, 8) / 8)
    assert part["image"].dtype == np.uint8


def test_evaluation_sees_every_example_once_in_order():
    held_out = pipeline.examples(
        source(), shape=SHAPE, flip=False, seed=0, shuffle=False
    )
    found = list(pipeline.eval_batches(held_out, batch_size=10, num_examples=23))
    assert [len(b["row"]) for b in found] == [10, 10, 3]
    np.testing.assert_array_equal(
        np.concatenate([b["label"] for b in found]), range(23)
    )
    np.testing.assert_allclose(found[2]["stratum"], np.arange(20, 23) / 23)


def test_bad_data_reach_the_trainer_as_what_they_are():
    """An error in a reading thread ends the batches with the source's own words."""

    def get(i):
        raise DataError("three of four images are broken")

    broken = pipeline.examples(
        Items(N, get, N), shape=SHAPE, flip=False, seed=0, shuffle=True
    )
    with pytest.raises(DataError, match="three of four"):
        next(pipeline.train_batches(broken, batch_size=B, start=0, stop=2))


def test_the_fingerprint_is_of_what_training_gets():
    """Order, augmentation and pictures: another of any is another digest."""

    def brighter(i):
        found = source()[i]
        return found | {"image": found["image"] + 1}

    plain = pipeline.fingerprint(dataset(), B)
    assert plain == pipeline.fingerprint(dataset(), B)
    others = [
        dataset(seed=4),
        dataset(flip=False),
        pipeline.examples(
            Items(N, brighter, N), shape=SHAPE, flip=True, seed=3, shuffle=True
        ),
    ]
    assert all(pipeline.fingerprint(other, B) != plain for other in others)


def fixed(flip=False):
    once = pipeline.examples(source(), shape=SHAPE, flip=False, seed=0, shuffle=False)
    return pipeline.both_ways(once) if flip else once


def test_examples_that_never_change_are_the_same_in_every_epoch():
    endless = pipeline.endless(fixed(), 3)
    for epoch in range(3):
        found = [endless[epoch * N + i] for i in range(N)]
        assert sorted(f["label"] for f in found) == list(range(N))
        for f in found:
            np.testing.assert_array_equal(f["image"], fixed()[f["label"]]["image"])
    labels = [[endless[e * N + i]["label"] for i in range(N)] for e in range(2)]
    assert labels[0] != labels[1]


def test_both_ways_is_every_example_and_its_mirror_image():
    both = fixed(flip=True)
    assert len(both) == 2 * N
    for i in range(N):
        np.testing.assert_array_equal(both[i + N]["image"], both[i]["image"][:, ::-1])
        assert both[i]["label"] == both[i + N]["label"] == i


def test_in_order_is_each_example_once():
    found = list(pipeline.in_order(fixed(), range(3, 20), batch_size=5, threads=3))
    assert [len(b["row"]) for b in found] == [5, 5, 5, 2]
    np.testing.assert_array_equal(
        np.concatenate([b["row"] for b in found]), range(3, 20)
    )
    for b in found:
        np.testing.assert_array_equal(b["label"], b["row"])


def test_the_fingerprint_of_fixed_examples_is_of_all_of_them():
    plain = pipeline.fixed_fingerprint(fixed())
    assert plain == pipeline.fixed_fingerprint(fixed())
    assert plain != pipeline.fixed_fingerprint(fixed(flip=True))
    shifted = pipeline.in_turn([fixed()[i] for i in range(N - 1)])
    assert plain != pipeline.fixed_fingerprint(shifted)
