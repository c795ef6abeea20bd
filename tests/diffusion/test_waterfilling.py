import numpy as np
import pytest
from scipy import integrate, optimize

from ul.core.errors import ConfigError
from ul.diffusion import waterfilling as w


@pytest.mark.parametrize(
    ("factor", "root"),
    [
        (1.1, 0.0357),
        (1.3, 0.1677),
        (1.5, 0.3550),
        (1.7, 0.5860),
        (2.0, 1.0),
        (2.5, 1.8356),
    ],
)
def test_roots_of_the_method(factor, root):
    np.testing.assert_allclose(w.posterior_precision(factor, 0.0), root, atol=6e-5)
    np.testing.assert_allclose(
        w.posterior_precision(factor, 2.0), root * np.exp(2.0), rtol=1e-3
    )


@pytest.mark.parametrize(("factor", "bias"), [(1.5, 1.0), (2.0, 0.0), (2.5, -1.0)])
def test_is_the_minimum_of_the_objective_itself(factor, bias):
    """rate(P) + c Int sigmoid(b - l) e^l / (2 (P + e^l)) dl, minimised numerically."""
    levels = np.linspace(-25.0, 25.0, 40_001)
    weight = np.exp(levels) / (1 + np.exp(levels - bias))

    def objective(log_p):
        decoder = weight / 2 / (np.exp(log_p) + np.exp(levels))
        return log_p / 2 + factor * integrate.trapezoid(decoder, levels)

    found = optimize.minimize_scalar(objective, bounds=(-8, 8), method="bounded")
    np.testing.assert_allclose(
        np.exp(found.x), w.posterior_precision(factor, bias), rtol=1e-2
    )


@pytest.mark.parametrize("factor", [1.0, 0.5, np.nan, -1.0])
def test_without_an_optimum_it_says_so(factor):
    with pytest.raises(ConfigError, match="above 1"):
        w.posterior_precision(factor, 0.0)


def test_rate_and_distortion_of_known_directions():
    variances = [4.0, 1.0, 0.01]
    assert w.rate_bits(variances, 1.0) == 1.0
    np.testing.assert_allclose(w.rate_bits(variances, 4.0), 2.0 + 1.0)
    np.testing.assert_allclose(w.distortion(variances, 4.0), 0.25 + 0.25 + 0.01)
    assert w.rate_bits([0.0, 0.0], 4.0) == 0.0


def test_inverses():
    variances = np.geomspace(1e-4, 3.0, 50)
    precision = w.precision_for_rate(variances, 12.5)
    np.testing.assert_allclose(w.rate_bits(variances, precision), 12.5, rtol=1e-9)
    bias = w.bias_for_rate(variances, 12.5, 1.7)
    np.testing.assert_allclose(w.posterior_precision(1.7, bias), precision, rtol=1e-9)


@pytest.mark.filterwarnings("error")
def test_many_bits_in_few_directions_do_not_overflow():
    np.testing.assert_allclose(
        w.rate_bits([1.0, 0.0, 1e-3], w.precision_for_rate([1.0, 0.0, 1e-3], 900.0)),
        900.0,
    )


@pytest.mark.parametrize("bits", [0.0, -1.0, np.inf])
def test_impossible_targets_are_refused(bits):
    with pytest.raises(ConfigError, match="bits"):
        w.precision_for_rate([1.0], bits)
