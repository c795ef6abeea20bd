import numpy as np
import pytest

from ul.metrics import precision_recall

RNG = np.random.default_rng(0)
# Two clusters a hundred of their widths apart.
LEFT, RIGHT = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 6)) + 100.0
BOTH = np.concatenate([LEFT, RIGHT])


def test_a_set_covers_itself():
    assert precision_recall.precision_recall(BOTH, BOTH) == (1.0, 1.0)


def test_samples_of_one_cluster_are_precise_and_recall_the_half():
    assert precision_recall.precision_recall(LEFT, BOTH) == (1.0, 0.5)
    assert precision_recall.precision_recall(BOTH, LEFT) == (0.5, 1.0)


def test_samples_elsewhere_are_neither():
    assert precision_recall.precision_recall(LEFT + 1000.0, BOTH) == (0.0, 0.0)


def test_the_ball_reaches_to_the_third_neighbour_and_no_further():
    """On a line at 0, 1, 3, 6 and 100: the ball of 0 reaches 6, of 100 reaches 1."""
    reference = np.asarray([0.0, 1.0, 3.0, 6.0, 100.0])[:, None]
    samples = np.asarray([-5.9, -6.1, 198.9, 199.1])[:, None]
    precision, _ = precision_recall.precision_recall(samples, reference)
    assert precision == 0.5
    _, recall = precision_recall.precision_recall(reference, samples)
    assert recall == 0.5


@pytest.mark.parametrize("block", [1, 100, 333])
def test_blocks_change_nothing(monkeypatch, block):
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(70, 4)) + 0.7
    want = precision_recall.precision_recall(a, b)
    monkeypatch.setattr(precision_recall, "BLOCK", block)
    assert precision_recall.precision_recall(a, b) == want
    assert 0.0 < want[0] < 1.0 and 0.0 < want[1] < 1.0


def test_three_rows_have_no_third_neighbour():
    with pytest.raises(ValueError, match="3 rows"):
        precision_recall.precision_recall(LEFT[:3], BOTH)
