"""The optimum of the UL objective on Gaussian data: reverse water-filling.

Derived here for the objective of arXiv 2602.17270 (ul/README.md, equation 5). Take a
direction x ~ N(0, s^2), a linear encoder of gain g and optimal denoisers. Then x given z_0
has the posterior precision P = 1/s^2 + g^2 e^5, where 5 is the prior's maximum log-SNR, and
  rate(P)    = 1/2 log(s^2 P) nats,
  decoder(P) = c Int sigmoid(b - l) (e^l / 2) / (P + e^l) dl
             = c/2 log(r) / (r - 1),  r = P e^-b  (put y = e^l, partial fractions).
d(rate + decoder) / d log P = 1/2 - c/2 h(r), where
  h(r) = 1/(1 - r) + r log(r) / (1 - r)^2 = (1 - r + r log r) / (1 - r)^2.
h falls from h(0) = 1 through h(1) = 1/2 to 0, and h(r) + h(1/r) = 1. So for c > 1 there is
exactly one minimum, P* = r e^b with h(r) = 1/c. For c <= 1 there is none: the latent then
carries no bits. Directions with s^2 > 1/P* are coded with distortion 1/P*, and the others
get no bits. All functions compute in float64 on the host.
"""

import numpy as np

from ul.core.errors import ConfigError

# log r is 16.6 at the largest factor, and -40.3 at the smallest float64 above 1.
MAX_FACTOR = 1e6
_MAX_LOG_RATIO = 45.0
_MAX_LOG = float(np.log(np.finfo(np.float64).max))
# Near r = 1 the two terms of h diverge, and its series is used instead:
# h(r) = sum of (1 - r)^k / ((k + 1) (k + 2)).
_SERIES = 1.0 / ((np.arange(10) + 1.0) * (np.arange(10) + 2.0))


def _h_of_exp(u) -> np.ndarray:
    """Return h(e^u) for u >= 0 at full relative precision: 1/2 at u = 0, then falling."""
    u = np.asarray(u, np.float64)
    far = np.maximum(u, 0.02)
    q = np.exp(-far)
    series = np.polynomial.polynomial.polyval(-np.expm1(np.minimum(u, 0.02)), _SERIES)
    return np.where(u < 0.02, series, q * (q - 1.0 + far) / (1.0 - q) ** 2)


def _log_ratio(loss_factor) -> np.ndarray:
    """Solve h(r) = 1/c for log r, elementwise, by bisection of `_h_of_exp`.

    By the symmetry of h it is enough to solve for the smaller of 1/c and 1 - 1/c, so
    neither c near 1 nor a large c loses digits.
    """
    c = np.asarray(loss_factor, np.float64)
    if not np.all((c > 1.0) & (c < MAX_FACTOR)):
        raise ConfigError(
            f"loss_factor must be above 1 and under {MAX_FACTOR:g}; got {loss_factor}. "
            "At 1 or below the optimal latent carries no bits."
        )
    target = np.where(c >= 2.0, 1.0, c - 1.0) / c
    low, high = np.zeros_like(c), np.full_like(c, _MAX_LOG_RATIO)
    for _ in range(60):
        middle = (low + high) / 2.0
        is_above = _h_of_exp(middle) > target
        low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
    return np.where(c >= 2.0, 1.0, -1.0) * (low + high) / 2.0


def _check_finite(name: str, value) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if not np.all(np.isfinite(array)):
        raise ConfigError(f"{name} must be finite; got {value}.")
    return array


def _check_variances(variances) -> np.ndarray:
    """Return the variances [..., D] in float64."""
    variances = np.asarray(variances, np.float64)
    if variances.ndim == 0 or variances.size == 0:
        raise ConfigError(
            "There must be at least one direction; got no variances. Check the spectrum."
        )
    invalid = ~(np.isfinite(variances) & (variances >= 0.0))
    if invalid.any():
        raise ConfigError(
            f"Variances must be finite and at least 0; {invalid.sum()} of "
            f"{variances.size} are not, such as {variances[invalid][0]}. Clip the spectrum "
            "at 0."
        )
    return variances


def _check_precision(precision) -> np.ndarray:
    """Return the precision with a last axis of length 1 that broadcasts over directions."""
    array = np.asarray(precision, np.float64)
    if not np.all(np.isfinite(array) & (array > 0.0)):
        raise ConfigError(f"precision must be positive and finite; got {precision}.")
    return array[..., None]


def _check_target(variances: np.ndarray, target_bits: float) -> None:
    if not (np.isfinite(target_bits) and target_bits > 0):
        raise ConfigError(
            f"The target must be a positive number of bits; got {target_bits}."
        )
    if variances.max() <= 0:
        raise ConfigError(
            f"The largest variance must be above 0 to code any bits; got "
            f"{variances.max()}. Check the spectrum."
        )


def _exp(log_precision, cause: str):
    """Return the precision, as a float if it is a scalar."""
    if np.any(np.abs(log_precision) > _MAX_LOG):
        raise ConfigError(
            f"The precision must fit into float64; {cause} needs one beyond its range. "
            "Use a value closer to 0."
        )
    precision = np.exp(log_precision)
    return precision if np.ndim(precision) else float(precision)


def posterior_precision(loss_factor, bias):
    """Return P*, the optimal posterior precision of every coded direction given z_0.

    Both arguments broadcast; two scalars give a float.

    Raises:
      ConfigError: loss_factor is at most 1 or at least `MAX_FACTOR`.
    """
    log_precision = _log_ratio(loss_factor) + _check_finite("bias", bias)
    return _exp(log_precision, f"bias {bias}")


def rate_bits(variances, precision) -> np.ndarray:
    """Return the bits per example at a precision: the sum of 1/2 log2(s^2 P).

    The last axis of `variances` holds the directions; `precision` broadcasts with the
    other axes.
    """
    variances, precision = _check_variances(variances), _check_precision(precision)
    with np.errstate(divide="ignore"):
        bits = 0.5 * (np.log2(variances) + np.log2(precision))
    return np.sum(np.maximum(bits, 0.0), axis=-1)


def distortion(variances, precision) -> np.ndarray:
    """Return the squared error of the posterior mean: the sum of min(s^2, 1/P)."""
    variances, precision = _check_variances(variances), _check_precision(precision)
    return np.sum(np.minimum(variances, 1.0 / precision), axis=-1)


def coded_directions(variances, precision) -> np.ndarray:
    """Return the number of directions that get bits: those with s^2 > 1/P."""
    variances, precision = _check_variances(variances), _check_precision(precision)
    return np.sum(variances > 1.0 / precision, axis=-1)


def _log_precision_for_rate(variances, target_bits: float) -> float:
    """Return the log P at which `rate_bits` is `target_bits`, in closed form.

    If the k largest directions are coded, 2 log(2) bits = k log P + sum of log s_i^2. The
    right k is the largest one whose smallest coded direction is still above the water
    level, s_k^2 > 1/P.
    """
    variances = _check_variances(variances).ravel()
    _check_target(variances, target_bits)
    log_variances = np.sort(np.log(variances[variances > 0]))[::-1]
    nats = 2.0 * np.log(2.0) * target_bits
    counts = np.arange(1, len(log_variances) + 1)
    log_precisions = (nats - np.cumsum(log_variances)) / counts
    is_consistent = log_variances + log_precisions > 0.0
    return float(log_precisions[np.flatnonzero(is_consistent)[-1]])


def precision_for_rate(variances, target_bits: float) -> float:
    """Return the precision at which `rate_bits` is `target_bits`.

    Raises:
      ConfigError: the target is not a positive number, or the data have no variance.
    """
    return _exp(_log_precision_for_rate(variances, target_bits), f"{target_bits} bits")


def bias_for_rate(variances, target_bits: float, loss_factor: float) -> float:
    """Return the bias b at which the optimum spends `target_bits` per example.

    Raises:
      ConfigError: as `precision_for_rate`, or the loss_factor is out of range.
    """
    log_precision = _log_precision_for_rate(variances, target_bits)
    return float(log_precision - _log_ratio(loss_factor))


def factor_for_rate(variances, target_bits: float, bias: float) -> float:
    """Return the loss_factor c at which the optimum spends `target_bits` per example.

    It is c = 1 / h(P e^-b).

    Raises:
      ConfigError: no factor above 1 and under `MAX_FACTOR` does, or as
        `precision_for_rate`.
    """
    log_precision = _log_precision_for_rate(variances, target_bits)
    u = log_precision - float(_check_finite("bias", bias))
    h = float(_h_of_exp(abs(u)))
    # h is compared before it divides, because it can be 0.
    if h <= 1.0 / MAX_FACTOR and u > 0 or 1.0 - h == 1.0:
        limit = f"under {MAX_FACTOR:g}" if u > 0 else "above 1"
        raise ConfigError(
            f"A loss_factor {limit} that spends {target_bits} bits must exist; at bias "
            f"{bias} there is none. Use a bias near {log_precision:.2f}."
        )
    return 1.0 / h if u >= 0 else 1.0 / (1.0 - h)
