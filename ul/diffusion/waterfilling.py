"""The exact optimum of the objective on Gaussian data: reverse water-filling.

For x ~ N(0, s^2) a direction, a linear encoder and ideal networks, a direction coded
to posterior precision P costs rate(P) = 1/2 log(s^2 P) nats and the decoder
c Int sigmoid(b - l) (e^l / 2) / (P + e^l) dl. Setting the derivative to zero:
P* = r e^b with h(r) = 1/c, h(r) = 1/(1 - r) + r log(r) / (1 - r)^2. Directions with
s^2 > 1/P* are coded down to distortion 1/P*, the others get no bits. float64, host.
"""

import numpy as np
from scipy import optimize

from ul.core.errors import ConfigError


def _h(r: float) -> float:
    """h(0) = 1, h(1) = 1/2, decreasing to 0."""
    gap = 1.0 - r
    if abs(gap) < 1e-4:  # series about r = 1, where both terms diverge
        return 0.5 + gap / 6.0
    return 1.0 / gap + r * np.log(r) / gap**2


def posterior_precision(loss_factor: float, bias: float) -> float:
    """P*: what every coded direction's precision of x given z_0 is at the optimum.

    Raises:
      ConfigError: loss_factor <= 1, at which nothing is worth a bit.
    """
    if not 1.0 < loss_factor < 1e6:
        raise ConfigError(
            f"loss_factor {loss_factor} has no optimum with bits in it; "
            "it must be above 1 (and under 1e6)"
        )
    log_r = optimize.brentq(
        lambda u: _h(float(np.exp(u))) - 1.0 / loss_factor, -40.0, 40.0, xtol=1e-12
    )
    return float(np.exp(log_r + bias))


def rate_bits(variances, precision) -> np.ndarray:
    """Bits an example spends when coded to `precision`: sum of 1/2 log2(s^2 P)."""
    variances = np.asarray(variances, np.float64)
    with np.errstate(divide="ignore"):
        bits = 0.5 * np.log2(variances * np.asarray(precision)[..., None])
    return np.sum(np.maximum(bits, 0.0), axis=-1)


def distortion(variances, precision) -> np.ndarray:
    """Squared error of the posterior mean, summed over directions: min(s^2, 1/P)."""
    variances = np.asarray(variances, np.float64)
    level = 1.0 / np.asarray(precision, np.float64)[..., None]
    return np.sum(np.minimum(variances, level), axis=-1)


def precision_for_rate(variances, target_bits: float) -> float:
    """The precision at which `rate_bits` is `target_bits`.

    Raises:
      ConfigError: the target is not a positive number, or the data have no variance.
    """
    variances = np.asarray(variances, np.float64)
    if not (np.isfinite(target_bits) and target_bits > 0) or variances.max() <= 0:
        raise ConfigError(
            f"no water level gives {target_bits} bits for variances of largest value "
            f"{variances.max()}; ask for a positive number of bits"
        )
    log_variances = np.log(variances[variances > 0])

    def excess(log_precision: float) -> float:
        gains = np.maximum(log_variances + log_precision, 0.0)
        return float(np.sum(gains)) / (2.0 * np.log(2.0)) - target_bits

    low = -log_variances.max()
    # The largest direction alone would reach the target here.
    high = low + 2.0 * np.log(2.0) * target_bits + 1e-9
    return float(np.exp(optimize.brentq(excess, low, high, xtol=1e-13)))


def bias_for_rate(variances, target_bits: float, loss_factor: float) -> float:
    """The bias b at which the optimum spends `target_bits` an example."""
    precision = precision_for_rate(variances, target_bits)
    return float(np.log(precision / posterior_precision(loss_factor, 0.0)))
