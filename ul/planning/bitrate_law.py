"""The best bitrate for a budget of training compute, fitted to a sweep.

R is the rate of the latents in bits per image, C the FLOPs of training the base model, both
relative to their geometric means in the sweep. Distances are Frechet distances to the same
reference, of as many images:

    reconstructions   F_r(R) = b R^-s                                                   (1)
    samples           F(R, C) = F_r(R) + a R^p C^-q                                     (2)
    bits of the base  R_base / R = r + e R^u C^-v                                       (3)

C is the compute of a base whose size suits its training, so trials are left out if another
one of the same bitrate has a smaller distance for no more compute. More bits reconstruct
better, and are harder to model; compute reduces what the base model loses. The exponents are
not negative, and the fit is one of least squares in logarithms. At a budget the distance of
samples is smallest at

    R* = (s b / (a p) C^q)^(1 / (p + s))                                                (4)

Intervals are from fits to trials that are drawn with replacement.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from ul.core.errors import ConfigError

MIN_BITRATES, MIN_BUDGETS, MIN_TRIALS = 3, 3, 8
NUM_DRAWS = 200
# A budget may be this many times outside of those of the sweep.
MAX_EXTRAPOLATION = 30.0
# Exponents stay within these bounds, because a law with one of 0 would have no optimum.
SMALLEST, LARGEST = 0.01, 10.0


@dataclasses.dataclass(frozen=True)
class BudgetTrial:
    """One trial of a sweep.

    rate_bits, base_bits: bits per image of the latents under prior and base model. flops:
    FLOPs of training the base model. reconstructions, samples: their Frechet distances.
    """

    rate_bits: float
    flops: float
    base_bits: float
    reconstructions: float
    samples: float


@dataclasses.dataclass(frozen=True)
class BitrateLaw:
    """The fitted equations 1 to 3, whose letters are the fields.

    mean_bits, mean_flops: the geometric means to which R and C are relative.
    """

    b: float
    s: float
    a: float
    p: float
    q: float
    r: float
    e: float
    u: float
    v: float
    mean_bits: float
    mean_flops: float

    def reconstructions(self, rate_bits):
        """Return the Frechet distance of reconstructions (equation 1)."""
        return self.b * (np.asarray(rate_bits) / self.mean_bits) ** -self.s

    def samples(self, rate_bits, flops):
        """Return the Frechet distance of samples (equation 2)."""
        rate = np.asarray(rate_bits) / self.mean_bits
        compute = np.asarray(flops) / self.mean_flops
        return (
            self.reconstructions(rate_bits) + self.a * rate**self.p * compute**-self.q
        )

    def base_bits(self, rate_bits, flops):
        """Return the bits per image under the base model (equation 3)."""
        rate = np.asarray(rate_bits) / self.mean_bits
        compute = np.asarray(flops) / self.mean_flops
        share = self.r + self.e * rate**self.u * compute**-self.v
        return share * np.asarray(rate_bits)

    def best_rate_bits(self, flops):
        """Return the rate with the smallest distance of samples (equation 4)."""
        compute = np.asarray(flops) / self.mean_flops
        ratio = self.s * self.b / (self.a * self.p) * compute**self.q
        return self.mean_bits * ratio ** (1.0 / (self.p + self.s))


def efficient(trials: Sequence[BudgetTrial]) -> list[bool]:
    """Return which trials have no better one of the same bitrate for no more compute."""
    return [
        not any(
            other.rate_bits == trial.rate_bits
            and other.flops <= trial.flops
            and other.samples < trial.samples
            for other in trials
        )
        for trial in trials
    ]


def check_trials(trials: Sequence[BudgetTrial], left_out: Sequence[str] = ()) -> None:
    """Raise ConfigError unless there are enough trials for the nine parameters.

    left_out: the trials that are not among them, with their reasons, for the message.
    """
    bitrates = len({t.rate_bits for t in trials})
    budgets = len({t.flops for t in trials})
    if len(trials) < MIN_TRIALS or bitrates < MIN_BITRATES or budgets < MIN_BUDGETS:
        others = ""
        if left_out:
            others = f" Left out were {len(left_out)}, such as {left_out[0]}."
        raise ConfigError(
            f"The sweep must have at least {MIN_TRIALS} finished trials of stage 2 with "
            f"{MIN_BITRATES} bitrates and {MIN_BUDGETS} budgets; it has {len(trials)} with "
            f"{bitrates} and {budgets}.{others} Run experiments/sweeps/budget.py, or add "
            "trials."
        )


def check_budget(flops: float, trials: Sequence[BudgetTrial]) -> None:
    """Raise ConfigError if a budget is far outside of those of the trials."""
    low, high = (f(t.flops for t in trials) for f in (min, max))
    if not low / MAX_EXTRAPOLATION <= flops <= high * MAX_EXTRAPOLATION:
        raise ConfigError(
            f"--flops must be within a factor of {MAX_EXTRAPOLATION:g} of the sweep's "
            f"budgets, {low:.3g} to {high:.3g}; got {flops:.3g}. Run larger trials."
        )


def fit(trials: Sequence[BudgetTrial]) -> BitrateLaw:
    """Fit the law to trials, as `check_trials` accepts them."""
    rate, flops, base, reconstructions, samples = np.asarray(
        [dataclasses.astuple(t) for t in trials], np.float64
    ).T
    mean_bits, mean_flops = (float(np.exp(np.log(x).mean())) for x in (rate, flops))
    log_r, log_c = np.log(rate / mean_bits), np.log(flops / mean_flops)

    def distances(x):
        log_b, s, log_a, p, q = x
        floor = np.exp(log_b - s * log_r)
        total = floor + np.exp(log_a + p * log_r - q * log_c)
        return np.concatenate(
            [np.log(floor / reconstructions), np.log(total / samples)]
        )

    gap = np.maximum(samples - reconstructions, 0.1 * samples)
    start = [np.log(reconstructions).mean(), 0.5, np.log(gap).mean(), 0.5, 0.3]
    free, exponent = (-np.inf, np.inf), (SMALLEST, LARGEST)
    bounds = np.transpose([free, exponent, free, exponent, exponent])
    log_b, s, log_a, p, q = optimize.least_squares(distances, start, bounds=bounds).x

    share = base / rate

    def shares(x):
        r, log_e, u, v = x
        return r + np.exp(log_e + u * log_r - v * log_c) - share

    start = [0.5 * share.min(), np.log(0.5 * share.mean()), 0.1, 0.1]
    bounds = np.transpose([(0.0, np.inf), free, (-LARGEST, LARGEST), exponent])
    r, log_e, u, v = optimize.least_squares(shares, start, bounds=bounds).x
    letters = (np.exp(log_b), s, np.exp(log_a), p, q, r, np.exp(log_e), u, v)
    return BitrateLaw(*map(float, (*letters, mean_bits, mean_flops)))


def bootstrap(trials: Sequence[BudgetTrial], seed: int = 0) -> list[BitrateLaw]:
    """Return the laws of NUM_DRAWS draws of the trials with replacement."""
    rng = np.random.default_rng(seed)
    laws: list[BitrateLaw] = []
    while len(laws) < NUM_DRAWS:
        drawn = [trials[i] for i in rng.integers(len(trials), size=len(trials))]
        bitrates, budgets = (
            {getattr(t, n) for t in drawn} for n in ("rate_bits", "flops")
        )
        if len(bitrates) >= MIN_BITRATES and len(budgets) >= MIN_BUDGETS:
            laws.append(fit(drawn))
    return laws


def interval(values: Sequence[float], mass: float = 0.9) -> tuple[float, float]:
    """Return the central interval that holds `mass` of the values."""
    low, high = np.quantile(values, [(1 - mass) / 2, (1 + mass) / 2])
    return float(low), float(high)


def leave_one_out_error(trials: Sequence[BudgetTrial]) -> float:
    """Return the median relative error of the distance of a trial that was left out."""
    errors = []
    for i, left_out in enumerate(trials):
        law = fit([*trials[:i], *trials[i + 1 :]])
        predicted = law.samples(left_out.rate_bits, left_out.flops)
        errors.append(abs(float(predicted) / left_out.samples - 1.0))
    return float(np.median(errors))
