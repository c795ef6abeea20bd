"""scikit-learn's digits as a source."""

import numpy as np

from ul.data.sources import digits


def test_the_split_is_fixed_and_has_all_classes():
    train, held_out = (digits.make_source(s, (8, 8, 1)) for s in ("train", "eval"))
    assert (len(train), len(held_out)) == (1437, 360)
    labels = np.bincount([held_out[i]["label"] for i in range(360)])
    assert len(labels) == 10 and labels.min() >= 34
    images = {train[i]["image"].tobytes() for i in range(len(train))}
    assert not images & {held_out[i]["image"].tobytes() for i in range(360)}
    assert train[0]["image"].dtype == np.uint8
    assert max(train[i]["image"].max() for i in range(50)) == 255
