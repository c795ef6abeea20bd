"""The exact optimum of the objective on Gaussian data: reverse water-filling.

Derived here for the objective of arXiv 2602.17270 (the method, section 2). For
x ~ N(0, s^2) a direction, a linear encoder of gain g and ideal networks, z_0 leaves x
with posterior precision P = 1/s^2 + g^2 e^5 (5: the prior's least noise), and
  rate(P)    = 1/2 log(s^2 P) nats,
  decoder(P) = c Int sigmoid(b - l) (e^l / 2) / (P + e^l) dl
             = c/2 log(r) / (r - 1),  r = P e^-b  (put y = e^l, partial fractions).
d(rate + decoder) / d log P = 1/2 - c/2 h(r), where
  h(r) = 1/(1 - r) + r log(r) / (1 - r)^2 = (1 - r + r log r) / (1 - r)^2.
h falls from h(0) = 1 through h(1) = 1/2 to 0, and h(r) + h(1/r) = 1. So for c > 1
there is one minimum, P* = r e^b with h(r) = 1/c, and for c <= 1 none: no bit pays.
Directions with s^2 > 1/P* are coded down to distortion 1/P*, the others get no bits.
float64, on the host.
"""

import numpy as np

from ul.core.errors import ConfigError

# At the largest factor log r is 16.6; at the float64 next to 1 it is -40.3.
MAX_FACTOR = 1e6
_MAX_LOG_RATIO = 45.0
_MAX_LOG = float(np.log(np.finfo(np.float64).max))
# h about r = 1, where its two terms diverge: sum of (1 - r)^k / ((k + 1) (k + 2)).
_SERIES = 1.0 / ((np.arange(10) + 1.0) * (np.arange(10) + 2.0))


def _tail(u) -> np.ndarray:
    """h(e^u) at u >= 0, to full relative precision: 1/2 at 0, then falling."""
    u = np.asarray(u, np.float64)
    far = np.maximum(u, 0.02)
    q = np.exp(-far)
    series = np.polynomial.polynomial.polyval(-np.expm1(np.minimum(u, 0.02)), _SERIES)
    return np.where(u < 0.02, series, q * (q - 1.0 + far) / (1.0 - q) ** 2)


def _log_ratio(loss_factor) -> np.ndarray:
    """log r with h(r) = 1/c, elementwise, by bisection of `_tail`.

    The symmetry of h leaves the smaller of 1/c and 1 - 1/c to solve for, so that
    neither c near 1 nor a large c loses digits.
    """
    c = np.asarray(loss_factor, np.float64)
    if not np.all((c > 1.0) & (c < MAX_FACTOR)):
        raise ConfigError(
            f"loss_factor {loss_factor} has no optimum with bits in it; "
            f"it must be above 1 (and under {MAX_FACTOR:g})"
        )
    tail = np.where(c >= 2.0, 1.0, c - 1.0) / c
    low, high = np.zeros_like(c), np.full_like(c, _MAX_LOG_RATIO)
    for _ in range(60):
        middle = (low + high) / 2.0
        above = _tail(middle) > tail
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(c >= 2.0, 1.0, -1.0) * (low + high) / 2.0


def _finite(name: str, value) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if not np.all(np.isfinite(array)):
        raise ConfigError(f"{name} {value} is not finite; give a number")
    return array


def _variances(variances) -> np.ndarray:
    """[..., D] in float64, checked."""
    variances = np.asarray(variances, np.float64)
    if variances.ndim == 0 or variances.size == 0:
        raise ConfigError("there are no variances; give at least one direction")
    wrong = ~(np.isfinite(variances) & (variances >= 0.0))
    if wrong.any():
        raise ConfigError(
            f"{wrong.sum()} of {variances.size} variances are negative or not finite, "
            f"such as {variances[wrong][0]}; clip a spectrum at 0 first"
        )
    return variances


def _precision(precision) -> np.ndarray:
    """[..., 1], checked."""
    array = np.asarray(precision, np.float64)
    if not np.all(np.isfinite(array) & (array > 0.0)):
        raise ConfigError(f"precision {precision} must be positive and finite")
    return array[..., None]


def _number(value):
    """A float for a scalar, else the array."""
    return value if np.ndim(value) else float(value)


def _exp(log_precision, what: str):
    if np.any(np.abs(log_precision) > _MAX_LOG):
        raise ConfigError(f"{what} needs a precision beyond float64; ask for less")
    return _number(np.exp(log_precision))


def posterior_precision(loss_factor, bias):
    """P*: what every coded direction's precision of x given z_0 is at the optimum.

    Broadcasts over both arguments; a float for two scalars.

    Raises:
      ConfigError: loss_factor <= 1, at which nothing is worth a bit.
    """
    return _exp(_log_ratio(loss_factor) + _finite("bias", bias), f"bias {bias}")


def rate_bits(variances, precision) -> np.ndarray:
    """Bits an example spends when coded to `precision`: sum of 1/2 log2(s^2 P).

    Directions are the last axis of `variances`; `precision` goes with the others.
    """
    variances, precision = _variances(variances), _precision(precision)
    with np.errstate(divide="ignore"):
        bits = 0.5 * (np.log2(variances) + np.log2(precision))
    return np.sum(np.maximum(bits, 0.0), axis=-1)


def distortion(variances, precision) -> np.ndarray:
    """Squared error of the posterior mean, summed over directions: min(s^2, 1/P)."""
    variances, precision = _variances(variances), _precision(precision)
    return np.sum(np.minimum(variances, 1.0 / precision), axis=-1)


def coded_directions(variances, precision) -> np.ndarray:
    """How many directions get bits: those with s^2 > 1/P."""
    variances, precision = _variances(variances), _precision(precision)
    return np.sum(variances > 1.0 / precision, axis=-1)


def _log_precision_for_rate(variances, target_bits: float) -> float:
    """log P with `rate_bits` at `target_bits`, in closed form.

    With the k largest directions coded, 2 log(2) bits = k log P + sum of log s_i^2;
    the right k is the largest whose own smallest direction is above the water.
    """
    variances = _variances(variances).ravel()
    if not (np.isfinite(target_bits) and target_bits > 0) or variances.max() <= 0:
        raise ConfigError(
            f"no water level gives {target_bits} bits for variances of largest value "
            f"{variances.max()}; ask for a positive number of bits"
        )
    logs = np.sort(np.log(variances[variances > 0]))[::-1]
    nats = 2.0 * np.log(2.0) * target_bits
    level = (nats - np.cumsum(logs)) / np.arange(1, len(logs) + 1)
    return float(level[np.flatnonzero(logs + level > 0.0)[-1]])


def precision_for_rate(variances, target_bits: float) -> float:
    """The precision at which `rate_bits` is `target_bits`.

    Raises:
      ConfigError: the target is not a positive number, or the data have no variance.
    """
    return _exp(_log_precision_for_rate(variances, target_bits), f"{target_bits} bits")


def bias_for_rate(variances, target_bits: float, loss_factor: float) -> float:
    """The bias b at which the optimum spends `target_bits` an example."""
    level = _log_precision_for_rate(variances, target_bits)
    return float(level - _log_ratio(loss_factor))


def factor_for_rate(variances, target_bits: float, bias: float) -> float:
    """The loss_factor c at which the optimum spends `target_bits`: c = 1 / h(P e^-b).

    Raises:
      ConfigError: no factor above 1 and under a million does.
    """
    level = _log_precision_for_rate(variances, target_bits)
    u = level - float(_finite("bias", bias))
    tail = float(_tail(abs(u)))
    # Compared before dividing: the tail of a far-off level is 0.
    if tail <= 1.0 / MAX_FACTOR and u > 0 or 1.0 - tail == 1.0:
        end = "under a million" if u > 0 else "above 1"
        raise ConfigError(
            f"no loss_factor {end} spends {target_bits} bits at bias {bias}; "
            f"use a bias near {level:.2f}"
        )
    return 1.0 / tail if u >= 0 else 1.0 / (1.0 - tail)
