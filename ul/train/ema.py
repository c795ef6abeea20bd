"""Exponential moving averages (EMA) of the parameters, and post-hoc EMA of any width.

An exponential average has a decay. A power-function average (Karras et al., arXiv
2312.02696, section 3) weights the parameters after step i by the integral over [i - 1, i] of

    p(tau) = (e + 1) tau^e / t^(e + 1),   0 <= tau <= t,

after t steps. The exponent e (gamma in the paper) determines how much of the weight lies on
late steps, independently of the length of the run. Power-function averages of two widths,
stored at several steps, approximate averages of other widths: `find_combination`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ul.core import ema_names


def warmup_decay(step, decay: float):
    """Return the decay of update `step`: (1 + step) / (10 + step), at most `decay`.

    A constant decay would keep the random initialization for 1 / (1 - decay) steps.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def step_size(step, name: str):
    """Return the weight of the new parameters in average `name` at update `step` >= 1.

    For a power-function average this is 1 - (1 - 1 / step)^(e + 1), which is 1 at step 1.
    """
    width = ema_names.relative_std(name)
    if width is None:
        return 1.0 - warmup_decay(step, float(name))
    return -jnp.expm1((exponent_from_width(width) + 1.0) * jnp.log1p(-1.0 / step))


def update(ema: dict, params, step) -> dict:
    """Move the averages towards the *new* `params`, those after update number `step`."""

    def update_one(name: str, average):
        size = step_size(step, name)
        return jax.tree.map(lambda e, p: e + size * (p - e), average, params)

    return {name: update_one(name, average) for name, average in ema.items()}


def exponent_from_width(width: float) -> float:
    """Return the exponent e of the profile whose standard deviation is `width` * t.

    It is the largest root of width^2 (e + 2)^2 (e + 3) = e + 1.
    """
    inverse = width**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(np.max(roots.real[np.abs(roots.imag) < 1e-6]))


def profile_inner_product(t_a, e_a, t_b, e_b):
    """Return the integral of p_a(tau) p_b(tau) d tau (arXiv 2312.02696, appendix C).

    The profiles have exponents e_a and e_b and end after t_a and t_b steps.
    """
    exponent = e_a + e_b + 1.0
    # In logarithms, because t^(e + 1) overflows after a million steps.
    log_powers = exponent * np.log(np.minimum(t_a, t_b))
    log_powers -= (e_a + 1.0) * np.log(t_a) + (e_b + 1.0) * np.log(t_b)
    return (e_a + 1.0) * (e_b + 1.0) / exponent * np.exp(log_powers)


@dataclasses.dataclass(frozen=True)
class EmaCombination:
    """A linear combination of stored averages that approximates another average.

    coefficients: one for each stored average; their sum is 1.
    relative_error: the norm of the difference between the profile of the combination and
    the target profile, divided by the norm of the target profile.
    """

    coefficients: tuple[float, ...]
    relative_error: float


def find_combination(
    stored: Sequence[tuple[int, float]], step: int, width: float
) -> EmaCombination:
    """Approximate the average of `width` at `step` by `stored` averages (step, width).

    This is a least-squares fit of profiles. Unlike in the paper the coefficients must sum
    to 1, as the weights of every average do; parameters that do not move are then exact.
    """
    t = np.asarray([at for at, _ in stored], np.float64) / step
    e = np.asarray([exponent_from_width(w) for _, w in stored])
    target = exponent_from_width(width)
    gram = profile_inner_product(t[:, None], e[:, None], t[None, :], e[None, :])
    with_target = profile_inner_product(t, e, 1.0, target)
    ones = np.ones((len(t), 1))
    system = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])
    # Profiles of neighboring steps are almost equal; rcond picks the smallest solution.
    solution = np.linalg.lstsq(system, np.append(with_target, 1.0), rcond=1e-13)[0]
    coefficients = solution[:-1]
    norm = profile_inner_product(1.0, target, 1.0, target)
    squared_error = (
        coefficients @ gram @ coefficients - 2.0 * coefficients @ with_target + norm
    )
    relative_error = float(np.sqrt(max(squared_error, 0.0) / norm))
    return EmaCombination(tuple(map(float, coefficients)), relative_error)
