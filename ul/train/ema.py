"""Moving averages of the parameters, and averages of any length made afterwards.

Exponential ones have a decay. Power-function ones (Karras et al., arXiv 2312.02696,
section 3) weigh the parameters after step i as the integral over [i - 1, i] of

    p(tau) = (e + 1) tau^e / t^(e + 1),   0 <= tau <= t,

after t steps: the `exponent` e (the paper's gamma) says how late the weight lies, the same
at any length of a run. Two of them, kept at several steps, span others: `combine`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ul.core import ema_names


def decay_at(step, decay: float):
    """The decay after `step` updates: (1 + step) / (10 + step) until it reaches `decay`.

    A fixed decay would keep the random start for 1 / (1 - decay) steps.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def rate_at(step, name: str):
    """The new parameters' part in the average `name` at update number `step`, from 1.

    Of a power function 1 - (1 - 1 / step)^(e + 1): at step 1 all of it.
    """
    width = ema_names.width(name)
    if width is None:
        return 1.0 - decay_at(step, float(name))
    return -jnp.expm1((exponent(width) + 1.0) * jnp.log1p(-1.0 / step))


def update(ema: dict, params, step) -> dict:
    """Averages moved towards the *new* `params`, those after update number `step`."""

    def moved(name: str, average):
        rate = rate_at(step, name)
        return jax.tree.map(lambda e, p: e + rate * (p - e), average, params)

    return {name: moved(name, average) for name, average in ema.items()}


def exponent(width: float) -> float:
    """e of the profile whose standard deviation is `width` t: the largest root of
    width^2 (e + 2)^2 (e + 3) = e + 1."""
    inverse = width**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(np.max(roots.real[np.abs(roots.imag) < 1e-6]))


def inner(t_a, e_a, t_b, e_b):
    """The inner product of two profiles, after t_a and t_b steps (appendix C)."""
    both = e_a + e_b + 1.0
    # In logarithms: t^(e + 1) of a million steps overflows.
    powers = both * np.log(np.minimum(t_a, t_b))
    powers -= (e_a + 1.0) * np.log(t_a) + (e_b + 1.0) * np.log(t_b)
    return (e_a + 1.0) * (e_b + 1.0) / both * np.exp(powers)


@dataclasses.dataclass(frozen=True)
class Combination:
    """factors: of the stored averages, summing to 1. off: the norm of the difference
    between the profile they make and the wanted one, in parts of that one's norm."""

    factors: tuple[float, ...]
    off: float


def combine(
    stored: Sequence[tuple[int, float]], step: int, width: float
) -> Combination:
    """The sum of `stored` averages (step, width) nearest to that of `width` at `step`.

    Least squares between profiles. Unlike in the paper the factors must sum to 1, as
    every average's weights do: whatever does not move while training is exact.
    """
    t = np.asarray([at for at, _ in stored], np.float64) / step
    e = np.asarray([exponent(w) for _, w in stored])
    wanted = exponent(width)
    products = inner(t[:, None], e[:, None], t[None, :], e[None, :])
    with_wanted = inner(t, e, 1.0, wanted)
    ones = np.ones((len(t), 1))
    system = np.block([[products, ones], [ones.T, np.zeros((1, 1))]])
    # Steps that lie close together have nearly one profile: the smallest factors.
    found = np.linalg.lstsq(system, np.append(with_wanted, 1.0), rcond=1e-13)[0]
    factors = found[:-1]
    norm = inner(1.0, wanted, 1.0, wanted)
    square = factors @ products @ factors - 2.0 * factors @ with_wanted + norm
    off = float(np.sqrt(max(square, 0.0) / norm))
    return Combination(tuple(map(float, factors)), off)
