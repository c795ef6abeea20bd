"""Photographs of scikit-learn and scikit-image as a source."""

import numpy as np
import pytest

from ul.core.errors import ConfigError
from ul.data.sources import photos

SHAPE = (16, 16, 3)


def test_two_photographs_are_held_out():
    train = photos.make_source("train", SHAPE, reduce=2, crops=3)
    held_out = photos.make_source("eval", SHAPE, reduce=2, crops=3)
    assert (len(train), len(held_out)) == (24, 6)
    assert {train[i]["label"] for i in range(24)} == set(range(8))
    assert {held_out[i]["label"] for i in range(6)} == {8}
    shapes = {train[i]["image"].shape for i in range(8)}
    assert all(min(s[:2]) >= 64 and s[2] == 3 for s in shapes)


def test_reduce_averages_squares():
    full, half = photos.load_photo("coffee", 1), photos.load_photo("coffee", 2)
    np.testing.assert_allclose(half[3, 5], full[6:8, 10:12].mean((0, 1)), atol=0.51)


@pytest.mark.parametrize("settings", [dict(reduce=0), dict(crops=0)])
def test_settings_below_one_are_refused(settings):
    with pytest.raises(ConfigError, match="must be at least 1; got"):
        photos.make_source("train", SHAPE, **settings)
