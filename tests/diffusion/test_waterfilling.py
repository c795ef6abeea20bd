"""Reverse water-filling: the optimum of the objective on Gaussian data."""

import decimal

import numpy as np
import pytest
from scipy import integrate, optimize

from tests.lib.breaks import Break
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
def test_the_optimal_precision_equals_the_published_roots(factor, root):
    np.testing.assert_allclose(w.posterior_precision(factor, 0.0), root, atol=6e-5)
    np.testing.assert_allclose(
        w.posterior_precision(factor, 2.0), root * np.exp(2.0), rtol=1e-3
    )


@pytest.mark.parametrize(("factor", "bias"), [(1.5, 1.0), (2.0, 0.0), (2.5, -1.0)])
def test_the_optimal_precision_minimizes_the_objective(factor, bias):
    """rate(P) + c Int sigmoid(b - l) e^l / (2 (P + e^l)) dl is minimized numerically."""
    levels = np.linspace(-25.0, 25.0, 40_001)
    weight = np.exp(levels) / (1 + np.exp(levels - bias))

    def objective(log_p):
        decoder = weight / 2 / (np.exp(log_p) + np.exp(levels))
        return log_p / 2 + factor * integrate.trapezoid(decoder, levels)

    minimum = optimize.minimize_scalar(objective, bounds=(-8, 8), method="bounded")
    np.testing.assert_allclose(
        np.exp(minimum.x), w.posterior_precision(factor, bias), rtol=1e-2
    )


@pytest.mark.parametrize("factor", [1.0, 0.5, np.nan, -1.0])
def test_a_factor_without_an_optimum_is_rejected(factor):
    with pytest.raises(ConfigError, match="loss_factor must be above 1"):
        w.posterior_precision(factor, 0.0)


def test_rate_and_distortion_of_known_directions():
    variances = [4.0, 1.0, 0.01]
    assert w.rate_bits(variances, 1.0) == 1.0
    np.testing.assert_allclose(w.rate_bits(variances, 4.0), 2.0 + 1.0)
    np.testing.assert_allclose(w.distortion(variances, 4.0), 0.25 + 0.25 + 0.01)
    assert w.rate_bits([0.0, 0.0], 4.0) == 0.0


def test_the_rate_inverts_precision_for_rate_and_bias_for_rate():
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
def test_impossible_targets_are_rejected(bits):
    with pytest.raises(ConfigError, match="positive number of bits"):
        w.precision_for_rate([1.0], bits)


def h(log_r):
    """Return 1/(1 - r) + r log(r) / (1 - r)^2 in 60 digits, without series or symmetry."""
    with decimal.localcontext() as context:
        context.prec = 60
        u = decimal.Decimal(log_r)
        r = u.exp()
        return float(1 / (1 - r) + r * u / (1 - r) ** 2)


@pytest.mark.parametrize(
    "log_r", [-34.0, -16.0, -1.0, -0.021, -0.019, -1e-6, 1e-6, 0.019, 0.021, 2.0, 16.0]
)
def test_the_factor_and_the_water_level_satisfy_the_optimum(log_r):
    """Near r = 1, on both sides of it, and where 1/c is almost 0 or 1."""
    factor = w.factor_for_rate([1.0], log_r / np.log(4.0) + 30.0, 60.0 * np.log(2.0))
    np.testing.assert_allclose(factor, 1 / h(log_r), rtol=1e-12)
    # Near c = 1, the spacing of float64 limits log r to the spacing of c over c - 1.
    np.testing.assert_allclose(
        np.log(w.posterior_precision(1 / h(log_r), 0.0)),
        log_r,
        atol=1e-12 + 2e-16 / min(h(log_r), h(-log_r)),
    )


@pytest.mark.parametrize("precision", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_the_precision_is_optimal_for_the_slope_of_the_decoder_integral(
    precision, bias
):
    """-d/d log P of Int sigmoid(b - l) e^l / (P + e^l) dl is h, so P is optimal at c = 1/h."""

    def decoder(log_p):
        return integrate.quad(
            lambda y: 1 / ((1 + y * np.exp(-bias)) * (np.exp(log_p) + y)), 0, np.inf
        )[0]

    u, step = np.log(precision) - bias, 1e-3
    expected = u / np.expm1(u) if u else 1.0
    np.testing.assert_allclose(decoder(np.log(precision)), expected, rtol=1e-7)
    fall = decoder(np.log(precision) - step) - decoder(np.log(precision) + step)
    # Central differences have an error of step^2 in h, and so in P.
    np.testing.assert_allclose(
        w.posterior_precision(2 * step / fall, bias), precision, rtol=1e-5
    )


def test_the_precision_broadcasts_and_scalars_stay_scalars():
    factors, biases = np.asarray([1.2, 2.0, 4.0]), np.asarray([[-1.0], [3.0]])
    precisions = w.posterior_precision(factors, biases)
    assert precisions.shape == (2, 3) and precisions.dtype == np.float64
    for i, j in np.ndindex(2, 3):
        scalar = w.posterior_precision(float(factors[j]), float(biases[i, 0]))
        assert isinstance(scalar, float) and scalar == precisions[i, j]


def test_spectra_and_precisions_broadcast():
    variances = np.asarray([[4.0, 1.0, 0.01], [0.5, 0.0, 2.0]])
    precision = np.asarray([4.0, 1.0])
    np.testing.assert_allclose(w.rate_bits(variances, precision), [3.0, 0.5])
    np.testing.assert_allclose(w.distortion(variances, precision), [0.51, 1.5])
    np.testing.assert_array_equal(w.coded_directions(variances, precision), [2, 1])
    # One spectrum at several precisions.
    np.testing.assert_allclose(w.rate_bits(variances[0], precision), [3.0, 1.0])


def test_a_direction_at_the_water_level_is_not_coded():
    assert w.coded_directions([0.25, 0.26, 0.0], 4.0) == 1


@pytest.mark.parametrize("bits", [1e-3, 1.0, 60.0])
def test_precision_for_rate_spends_the_bits_in_its_coded_directions(bits):
    """With few or all directions coded, and with equal ones among them."""
    variances = np.repeat(np.geomspace(1e-4, 3.0, 12), 2)
    precision = w.precision_for_rate(variances, bits)
    np.testing.assert_allclose(w.rate_bits(variances, precision), bits, rtol=1e-9)


@pytest.mark.parametrize("factor", [1.0001, 1.5, 2.0, 30.0, 9e5])
def test_factor_for_rate_inverts_bias_for_rate(factor):
    variances = np.geomspace(1e-4, 3.0, 50)
    bias = w.bias_for_rate(variances, 12.5, factor)
    np.testing.assert_allclose(
        w.factor_for_rate(variances, 12.5, bias), factor, rtol=1e-9
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: w.rate_bits([1.0, np.nan], 1.0), "1 of 2 are not, such as nan"),
        (lambda: w.distortion([1.0, -0.5], 1.0), "1 of 2 are not, such as -0.5"),
        (lambda: w.coded_directions([np.inf], 1.0), "Clip the spectrum"),
        (lambda: w.precision_for_rate([], 1.0), "got no variances"),
        (lambda: w.bias_for_rate([0.0], 1.0, 1.5), "largest variance must be above 0"),
        (
            lambda: w.rate_bits([1.0], 0.0),
            "precision must be positive and finite; got 0.0",
        ),
        (lambda: w.posterior_precision(1.5, np.nan), "bias must be finite; got nan"),
        (lambda: w.posterior_precision(1.5, -900.0), "bias -900.0 needs"),
        (lambda: w.posterior_precision([2.0, 1e6], 0.0), "under 1e"),
        (lambda: w.precision_for_rate([1.0], 600.0), "600.0 bits needs"),
        (lambda: w.bias_for_rate([1.0], 2.0, 1.0), "above 1"),
        (lambda: w.factor_for_rate([1.0], 0.0, 0.0), "positive number of bits"),
        (lambda: w.factor_for_rate([1.0], 2.0, np.inf), "bias must be finite; got inf"),
        (lambda: w.factor_for_rate([1.0], 30.0, 0.0), "under 1e.* near 41.59"),
        (
            lambda: w.factor_for_rate([1.0], 2.0, 60.0),
            "above 1 that spends .* near 2.77",
        ),
    ],
)
def test_invalid_arguments_are_rejected_with_a_message_of_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


BREAKS = (
    Break(
        "a target in nats instead of bits",
        "ul/diffusion/waterfilling.py",
        "nats = 2.0 * np.log(2.0) * target_bits",
        "nats = 2.0 * target_bits",
        "test_precision_for_rate_spends_the_bits_in_its_coded_directions",
    ),
    Break(
        "the optimal precision of a small factor above 1",
        "ul/diffusion/waterfilling.py",
        "np.where(c >= 2.0, 1.0, -1.0) *",
        "1.0 *",
        "test_the_optimal_precision_minimizes_the_objective",
    ),
)
