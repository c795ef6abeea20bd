import decimal

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


def h(log_r):
    """1/(1 - r) + r log(r) / (1 - r)^2 as printed, in 60 digits: no series, no symmetry."""
    with decimal.localcontext() as context:
        context.prec = 60
        u = decimal.Decimal(log_r)
        r = u.exp()
        return float(1 / (1 - r) + r * u / (1 - r) ** 2)


@pytest.mark.parametrize(
    "log_r", [-34.0, -16.0, -1.0, -0.021, -0.019, -1e-6, 1e-6, 0.019, 0.021, 2.0, 16.0]
)
def test_the_factor_belongs_to_its_water_level(log_r):
    """On both sides of r = 1, at it, and where 1/c is all but 0 or 1."""
    factor = w.factor_for_rate([1.0], log_r / np.log(4.0) + 30.0, 60.0 * np.log(2.0))
    np.testing.assert_allclose(factor, 1 / h(log_r), rtol=1e-12)
    # Near c = 1 a float64 holds log r only to the spacing of c over c - 1.
    np.testing.assert_allclose(
        np.log(w.posterior_precision(1 / h(log_r), 0.0)),
        log_r,
        atol=1e-12 + 2e-16 / min(h(log_r), h(-log_r)),
    )


@pytest.mark.parametrize("precision", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_the_slope_of_the_decoder_integral_has_its_optimum_there(precision, bias):
    """-d/d log P of Int sigmoid(b - l) e^l / (P + e^l) dl is h: P is the optimum at 1/h."""

    def decoder(log_p):
        return integrate.quad(
            lambda y: 1 / ((1 + y * np.exp(-bias)) * (np.exp(log_p) + y)), 0, np.inf
        )[0]

    u, step = np.log(precision) - bias, 1e-3
    want = u / np.expm1(u) if u else 1.0
    np.testing.assert_allclose(decoder(np.log(precision)), want, rtol=1e-7)
    fall = decoder(np.log(precision) - step) - decoder(np.log(precision) + step)
    # Central differences: an error of step^2, here in h and so in P.
    np.testing.assert_allclose(
        w.posterior_precision(2 * step / fall, bias), precision, rtol=1e-5
    )


def test_precision_broadcasts_and_scalars_stay_scalars():
    factors, biases = np.asarray([1.2, 2.0, 4.0]), np.asarray([[-1.0], [3.0]])
    got = w.posterior_precision(factors, biases)
    assert got.shape == (2, 3) and got.dtype == np.float64
    for i, j in np.ndindex(2, 3):
        one = w.posterior_precision(float(factors[j]), float(biases[i, 0]))
        assert isinstance(one, float) and one == got[i, j]


def test_spectra_and_precisions_broadcast():
    variances = np.asarray([[4.0, 1.0, 0.01], [0.5, 0.0, 2.0]])
    precision = np.asarray([4.0, 1.0])
    np.testing.assert_allclose(w.rate_bits(variances, precision), [3.0, 0.5])
    np.testing.assert_allclose(w.distortion(variances, precision), [0.51, 1.5])
    np.testing.assert_array_equal(w.coded_directions(variances, precision), [2, 1])
    # One spectrum at several levels.
    np.testing.assert_allclose(w.rate_bits(variances[0], precision), [3.0, 1.0])


def test_a_direction_at_the_water_level_is_not_coded():
    assert w.coded_directions([0.25, 0.26, 0.0], 4.0) == 1


@pytest.mark.parametrize("bits", [1e-3, 1.0, 60.0])
def test_the_level_is_where_its_own_directions_spend_the_bits(bits):
    """Few or all of the directions coded, equal ones among them."""
    variances = np.repeat(np.geomspace(1e-4, 3.0, 12), 2)
    precision = w.precision_for_rate(variances, bits)
    np.testing.assert_allclose(w.rate_bits(variances, precision), bits, rtol=1e-9)


@pytest.mark.parametrize("factor", [1.0001, 1.5, 2.0, 30.0, 9e5])
def test_factor_and_bias_are_inverse_to_each_other(factor):
    variances = np.geomspace(1e-4, 3.0, 50)
    bias = w.bias_for_rate(variances, 12.5, factor)
    np.testing.assert_allclose(
        w.factor_for_rate(variances, 12.5, bias), factor, rtol=1e-9
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: w.rate_bits([1.0, np.nan], 1.0), "1 of 2 variances .* such as nan"),
        (lambda: w.distortion([1.0, -0.5], 1.0), "1 of 2 variances .* such as -0.5"),
        (lambda: w.coded_directions([np.inf], 1.0), "clip a spectrum"),
        (lambda: w.precision_for_rate([], 1.0), "no variances"),
        (lambda: w.bias_for_rate([0.0], 1.0, 1.5), "positive number of bits"),
        (lambda: w.rate_bits([1.0], 0.0), "precision 0.0 must be positive"),
        (lambda: w.posterior_precision(1.5, np.nan), "bias nan is not finite"),
        (lambda: w.posterior_precision(1.5, -900.0), "bias -900.0 needs"),
        (lambda: w.posterior_precision([2.0, 1e6], 0.0), "under 1e"),
        (lambda: w.precision_for_rate([1.0], 600.0), "600.0 bits needs"),
        (lambda: w.bias_for_rate([1.0], 2.0, 1.0), "above 1"),
        (lambda: w.factor_for_rate([1.0], 0.0, 0.0), "positive number of bits"),
        (lambda: w.factor_for_rate([1.0], 2.0, np.inf), "bias inf is not finite"),
        (lambda: w.factor_for_rate([1.0], 30.0, 0.0), "under a million .* near 41.59"),
        (lambda: w.factor_for_rate([1.0], 2.0, 60.0), "above 1 spends .* near 2.77"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)
