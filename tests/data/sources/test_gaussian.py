"""Gaussian images of a known spectrum."""

import numpy as np
import pytest
from scipy import fft

from ul.core.errors import ConfigError
from ul.data.sources import gaussian

SETTINGS = dict(exponent=2.0, std=0.25, num_examples=8)


def test_images_have_the_requested_spectrum():
    shape, n = (4, 4, 1), 4096
    source = gaussian.make_source("train", shape, **SETTINGS | {"num_examples": n})
    x = np.stack([source[i]["image"] for i in range(n)]) / 127.5 - 1.0
    coefficients = fft.dctn(x, axes=(1, 2), norm="ortho")
    variances = gaussian.coefficient_variances(shape, 2.0, 0.25)
    # A sample variance has relative standard error sqrt(2 / n).
    np.testing.assert_allclose(coefficients.var(0), variances, rtol=4 * np.sqrt(2 / n))
    np.testing.assert_allclose(variances.mean(), 0.25**2)
    correlations = np.corrcoef(coefficients.reshape(n, -1), rowvar=False)
    assert np.abs(correlations - np.eye(16)).max() < 5 / np.sqrt(n)


def test_images_depend_on_split_and_index_alone():
    one, two = (gaussian.make_source("train", (4, 4, 3), **SETTINGS) for _ in range(2))
    held_out = gaussian.make_source("eval", (4, 4, 3), **SETTINGS)
    np.testing.assert_array_equal(one[5]["image"], two[5]["image"])
    assert not np.array_equal(one[5]["image"], one[4]["image"])
    assert not np.array_equal(one[5]["image"], held_out[5]["image"])


@pytest.mark.parametrize(
    "wrong",
    [dict(std=0.0), dict(std=0.4), dict(exponent=-1.0), dict(num_examples=0)],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="data.source"):
        gaussian.make_source("train", (4, 4, 1), **SETTINGS | wrong)
