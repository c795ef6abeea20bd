"""The entropy of data relative to that of Gaussian data, against closed forms."""

import math
import sys

import numpy as np
import pytest

from ul.planning import entropy
from ul.planning import spectrum as spectra

NUM_ROWS = 4000


def mixed(values: np.ndarray) -> np.ndarray:
    """Mix independent columns by a rotation, and give them different scales first."""
    size = values.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))
    return (values * np.linspace(1.0, 3.0, size)) @ rotation


# Entropy powers at variance 1, exp(2 h) / (2 pi e), from the entropies of the distributions.
@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        ("normal", 1.0),
        ("uniform", 6.0 / (math.pi * math.e)),
        ("laplace", math.e / math.pi),
        ("exponential", math.e / (2.0 * math.pi)),
    ],
)
def test_the_ratio_of_mixed_independent_values(draw, expected):
    values = getattr(np.random.default_rng(0), draw)(size=(NUM_ROWS, 6))
    ratio = entropy.entropy_ratio(mixed(values))
    # Components are not found exactly; mixtures of them have more entropy, here up to 7 %.
    assert 0.98 * expected < ratio < 1.08 * expected


def test_only_the_leading_directions_count(monkeypatch):
    monkeypatch.setattr(entropy, "MAX_DIRECTIONS", 4)
    rng = np.random.default_rng(0)
    values = np.hstack([rng.normal(size=(2000, 4)), rng.exponential(size=(2000, 3))])
    assert entropy.entropy_ratio(values) > 0.95


def test_images_of_two_kinds_have_less_entropy_than_gaussian_ones():
    """Independent pixels are 28 or 228, with noise of standard deviation 10.

    The choice adds one bit to the entropy of the noise, so the entropy power is 4 * 10^2,
    and the variance is 100^2 + 10^2.
    """
    rng = np.random.default_rng(0)
    image = rng.choice([28.0, 228.0], (NUM_ROWS, 2, 2, 1))
    image = (image + rng.normal(0, 10, image.shape)).round().clip(0, 255)
    image = image.astype(np.uint8)
    for spectrum in (
        spectra.image_spectrum(image, measure_entropy=True),
        spectra.patch_spectrum(image, 2, 1, measure_entropy=True),
    ):
        np.testing.assert_allclose(spectrum.entropy_ratio, 400 / 10100, rtol=0.1)
    assert spectra.image_spectrum(image).entropy_ratio is None


def test_the_entropy_power_takes_the_place_of_the_variance_in_the_latents():
    """With P = 2 and half of the entropy power, the directions leave 3, 0 and 0."""
    spectrum = spectra.Spectrum(
        np.asarray([4.0, 1.0, 0.25]), 2.0, "by hand", entropy_ratio=0.5
    )
    expected = 2 * 3 * np.exp(-5.0) / 8
    np.testing.assert_allclose(spectrum.latent_variance(2.0, 8, 5.0), expected)
    assert spectrum.bits(2.0) == spectra.Spectrum(spectrum.variances, 2.0, "").bits(2.0)


def test_nothing_is_measured_without_scikit_learn_or_from_few_rows(monkeypatch):
    values = np.random.default_rng(0).normal(size=(300, 2))
    assert entropy.entropy_ratio(values) is not None
    assert entropy.entropy_ratio(values[:200]) is None
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert entropy.entropy_ratio(values) is None
