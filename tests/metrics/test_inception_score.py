"""The inception score of probabilities whose score is known."""

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.metrics.inception_score import InceptionScore

RNG = np.random.default_rng(0)


def score(probs, split_size=5000, num_chunks=1):
    inception_score = InceptionScore(split_size)
    for chunk in np.array_split(probs, num_chunks):
        inception_score.add(chunk)
    return inception_score.value()


def test_one_hot_predictions_give_the_number_of_classes():
    np.testing.assert_allclose(score(np.tile(np.eye(10), (50, 1))), 10.0, rtol=1e-12)


def test_equal_predictions_give_one():
    np.testing.assert_allclose(score(np.full((70, 10), 0.1)), 1.0, rtol=1e-12)


def test_two_predictions_by_hand():
    p, q = np.asarray([0.9, 0.1]), np.asarray([0.3, 0.7])
    m = (p + q) / 2
    kl = (np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2
    np.testing.assert_allclose(score(np.stack([p, q])), np.exp(kl), rtol=1e-12)


def test_the_score_is_the_mean_over_splits():
    """Five classes in the first split, one in the second, two in the shorter last one."""
    probs = np.concatenate(
        [np.tile(np.eye(5), (10, 1)), np.tile(np.eye(5)[:1], (50, 1)), np.eye(5)[:2]]
    )
    np.testing.assert_allclose(score(probs, split_size=50), (5 + 1 + 2) / 3, rtol=1e-12)


@pytest.mark.parametrize("num_chunks", [2, 3, 100])
def test_the_score_does_not_depend_on_the_chunks(num_chunks):
    probs = RNG.dirichlet(np.full(7, 0.3), 230)
    np.testing.assert_allclose(
        score(probs, split_size=50, num_chunks=num_chunks),
        score(probs, split_size=50),
        rtol=1e-12,
    )


BREAKS = (
    Break(
        "the inception score of the last split alone",
        "ul/metrics/inception_score.py",
        "self._scores.append(self._score())",
        "self._scores = [self._score()]",
        "test_the_score_is_the_mean_over_splits",
    ),
)
