"""Precision and recall of clusters and points whose neighbors are known."""

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.metrics import precision_recall

RNG = np.random.default_rng(0)
# Two clusters a hundred of their widths apart.
LEFT, RIGHT = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 6)) + 100.0
BOTH = np.concatenate([LEFT, RIGHT])


def test_a_set_covers_itself():
    assert precision_recall.precision_recall(BOTH, BOTH) == (1.0, 1.0)


def test_samples_of_one_of_two_clusters_have_precision_1_and_recall_one_half():
    assert precision_recall.precision_recall(LEFT, BOTH) == (1.0, 0.5)
    assert precision_recall.precision_recall(BOTH, LEFT) == (0.5, 1.0)


def test_distant_samples_have_neither_precision_nor_recall():
    assert precision_recall.precision_recall(LEFT + 1000.0, BOTH) == (0.0, 0.0)


def test_the_ball_reaches_to_the_third_neighbor_and_no_further():
    """References at 0, 1, 3, 6 and 100: the ball of 0 reaches 6, that of 100 reaches 1."""
    reference = np.asarray([0.0, 1.0, 3.0, 6.0, 100.0])[:, None]
    samples = np.asarray([-5.9, -6.1, 198.9, 199.1])[:, None]
    precision, _ = precision_recall.precision_recall(samples, reference)
    assert precision == 0.5
    _, recall = precision_recall.precision_recall(reference, samples)
    assert recall == 0.5


@pytest.mark.parametrize("entries", [1, 100, 333])
def test_the_result_does_not_depend_on_the_block_size(monkeypatch, entries):
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(70, 4)) + 0.7
    expected = precision_recall.precision_recall(a, b)
    monkeypatch.setattr(precision_recall, "MAX_BLOCK_ENTRIES", entries)
    assert precision_recall.precision_recall(a, b) == expected
    assert 0.0 < expected[0] < 1.0 and 0.0 < expected[1] < 1.0


def test_three_rows_have_no_third_neighbor():
    with pytest.raises(ValueError, match="at least 4 rows .*; got 3 rows"):
        precision_recall.precision_recall(LEFT[:3], BOTH)


BREAKS = (
    Break(
        "a row that counts as its own neighbor",
        "ul/metrics/precision_recall.py",
        "axis=1)[:, NEIGHBORS]",
        "axis=1)[:, NEIGHBORS - 1]",
        "test_the_ball_reaches_to_the_third_neighbor_and_no_further",
    ),
)
