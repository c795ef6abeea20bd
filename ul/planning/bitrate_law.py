"""The best bitrate for a budget of training compute, fitted to a sweep.

R is the rate of the latents in bits per image, N the training FLOPs per image of the base
model, and D the number of images that it was trained on, all relative to their geometric means
in the sweep. Distances are Frechet distances to the same reference, of as many images:

    reconstructions   F_r(R) = f R^-s                                                (1)
    samples           F(R, N, D) = F_r(R) + a R^p N^-m + b R^q D^-n                  (2)
    bits of the base  R_base / R = r + a' R^p' N^-m' + b' R^q' D^-n'                 (3)

Equation 2 is that of Hoffmann et al. (arXiv:2203.15556, equation 2) for each bitrate: the first
term is what the decoder cannot reconstruct, the second what a base of finite size does not
model, the third what it has not learned yet. The fit is one of least squares, of distances in
logarithms. A budget is the compute C = N D. In logarithms of R and N equation 2 is then a sum
of exponentials of linear functions, which is convex, so its minimum for a budget is found
exactly. It is searched within the rates of the sweep, and among bases from its smallest size to
MAX_EXTRAPOLATION times its largest. Intervals are from fits to trials that are drawn with
replacement.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from ul.core.errors import ConfigError

MIN_BITRATES, MIN_SIZES, MIN_LENGTHS, MIN_TRIALS = 3, 3, 2, 12
NUM_DRAWS = 200
# Fits of trials that follow the law need about 30; those of other trials would not end soon.
MAX_EVALUATIONS = 200
# A budget may be this many times outside of those of the sweep.
MAX_EXTRAPOLATION = 30.0
# Exponents of size and length stay within these bounds: more compute never hurts.
SMALLEST, LARGEST = 0.01, 10.0


@dataclasses.dataclass(frozen=True)
class BudgetTrial:
    """One trial of a sweep.

    rate_bits, base_bits: bits per image of the latents under prior and base model.
    flops_per_image, num_images: of training the base model. reconstructions, samples: their
    Frechet distances.
    """

    rate_bits: float
    flops_per_image: float
    num_images: float
    base_bits: float
    reconstructions: float
    samples: float

    @property
    def flops(self) -> float:
        """FLOPs of training the base model."""
        return self.flops_per_image * self.num_images


@dataclasses.dataclass(frozen=True)
class Excess:
    """The two last terms of equations 2 and 3, whose letters are the fields."""

    a: float
    p: float
    m: float
    b: float
    q: float
    n: float

    def __call__(self, log_r, log_n, log_d):
        """Return a R^p N^-m + b R^q D^-n, from logarithms."""
        size = self.a * np.exp(self.p * log_r - self.m * log_n)
        return size + self.b * np.exp(self.q * log_r - self.n * log_d)


@dataclasses.dataclass(frozen=True)
class Scales:
    """The geometric means to which R, N and D are relative."""

    rate_bits: float
    flops_per_image: float
    num_images: float

    def logarithms(self, *values):
        """Return log R, log N and log D, or as many of them as there are values."""
        return [
            np.log(np.asarray(value, np.float64) / scale)
            for value, scale in zip(values, dataclasses.astuple(self), strict=False)
        ]


@dataclasses.dataclass(frozen=True)
class BestSetting:
    """The rate and the size of the base with the smallest distance of samples at a budget."""

    rate_bits: float
    flops_per_image: float
    samples: float


@dataclasses.dataclass(frozen=True)
class BitrateLaw:
    """The fitted equations 1 to 3.

    distance, share: the excess of equations 2 and 3. rates: the smallest and the largest rate
    of the sweep. sizes: the same of the FLOPs per image.
    """

    f: float
    s: float
    distance: Excess
    r: float
    share: Excess
    scales: Scales
    rates: tuple[float, float]
    sizes: tuple[float, float]

    def reconstructions(self, rate_bits):
        """Return the Frechet distance of reconstructions (equation 1)."""
        (log_r,) = self.scales.logarithms(rate_bits)
        return self.f * np.exp(-self.s * log_r)

    def samples(self, rate_bits, flops_per_image, num_images):
        """Return the Frechet distance of samples (equation 2)."""
        logs = self.scales.logarithms(rate_bits, flops_per_image, num_images)
        return self.reconstructions(rate_bits) + self.distance(*logs)

    def base_bits(self, rate_bits, flops_per_image, num_images):
        """Return the bits per image under the base model (equation 3)."""
        logs = self.scales.logarithms(rate_bits, flops_per_image, num_images)
        return (self.r + self.share(*logs)) * np.asarray(rate_bits)

    def best(self, flops: float, rate_bits: float | None = None) -> BestSetting:
        """Return the best setting for a budget, or the best size at a given rate."""
        rates = self.rates if rate_bits is None else (rate_bits, rate_bits)
        low, high = self.sizes
        bounds = np.log([rates, (low, MAX_EXTRAPOLATION * high)])

        def samples(x):
            rate, size = np.exp(x)
            return np.log(self.samples(rate, size, flops / size))

        start = bounds.mean(1)
        minimum = optimize.minimize(samples, start, bounds=bounds, method="L-BFGS-B")
        return BestSetting(*map(float, (*np.exp(minimum.x), np.exp(minimum.fun))))


def check_trials(trials: Sequence[BudgetTrial], left_out: Sequence[str] = ()) -> None:
    """Raise ConfigError unless there are enough trials for the parameters.

    left_out: the trials that are not among them, with their reasons, for the message.
    """
    bitrates, sizes, lengths = _distinct(trials)
    if (
        len(trials) < MIN_TRIALS
        or bitrates < MIN_BITRATES
        or sizes < MIN_SIZES
        or lengths < MIN_LENGTHS
    ):
        others = ""
        if left_out:
            others = f" Left out were {len(left_out)}, such as {left_out[0]}."
        raise ConfigError(
            f"The sweep must have at least {MIN_TRIALS} finished trials of stage 2 with "
            f"{MIN_BITRATES} bitrates, {MIN_SIZES} sizes of the base and {MIN_LENGTHS} "
            f"training lengths; it has {len(trials)} with {bitrates}, {sizes} and {lengths}."
            f"{others} Run experiments/sweeps/budget.py, or add trials."
        )


def _distinct(trials: Sequence[BudgetTrial]) -> tuple[int, int, int]:
    """Return the number of bitrates, sizes and training lengths."""
    names = ("rate_bits", "flops_per_image", "num_images")
    bitrates, sizes, lengths = (len({getattr(t, n) for t in trials}) for n in names)
    return bitrates, sizes, lengths


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
    rate, size, length, base, reconstructions, samples = np.asarray(
        [dataclasses.astuple(t) for t in trials], np.float64
    ).T
    scales = Scales(*(float(np.exp(np.log(x).mean())) for x in (rate, size, length)))
    logs = scales.logarithms(rate, size, length)

    def distance_errors(x):
        floor = np.exp(x[0] - x[1] * logs[0])
        total = floor + _excess(x[2:])(*logs)
        return np.concatenate(
            [np.log(floor / reconstructions), np.log(total / samples)]
        )

    gap = np.log(np.maximum(samples - reconstructions, 0.1 * samples).mean() / 2)
    x = _least_squares(
        distance_errors, (np.log(reconstructions).mean(), 0.5), (-np.inf, SMALLEST), gap
    )
    share = base / rate
    y = _least_squares(
        lambda y: y[0] + _excess(y[1:])(*logs) - share,
        (0.5 * share.min(),),
        (0.0,),
        np.log(share.mean() / 4),
    )
    return BitrateLaw(
        f=float(np.exp(x[0])),
        s=float(x[1]),
        distance=_excess(x[2:]),
        r=float(y[0]),
        share=_excess(y[1:]),
        scales=scales,
        rates=(float(rate.min()), float(rate.max())),
        sizes=(float(size.min()), float(size.max())),
    )


def _excess(x) -> Excess:
    """Return the excess of parameters of which the two factors are logarithms."""
    log_a, p, m, log_b, q, n = x
    return Excess(*map(float, (np.exp(log_a), p, m, np.exp(log_b), q, n)))


def _least_squares(errors, first, lowest, log_size) -> np.ndarray:
    """Return the parameters with the smallest errors: `first`, then those of an excess.

    The fit starts twice, with most of the excess in the size of the base and in the length of
    its training. lowest: of the parameters before the excess. log_size: of the excess.
    """
    signed, positive = (-LARGEST, LARGEST), (SMALLEST, LARGEST)
    bounds = [(low, np.inf) for low in lowest]
    bounds += [(-np.inf, np.inf), signed, positive] * 2
    fits = [
        optimize.least_squares(
            errors,
            [*first, log_size, 0.5, 0.3, log_size + less, 0.0, 0.5],
            bounds=np.transpose(bounds),
            max_nfev=MAX_EVALUATIONS,
        )
        for less in (-1.0, 1.0)
    ]
    return min(fits, key=lambda result: result.cost).x


def bootstrap(trials: Sequence[BudgetTrial], seed: int = 0) -> list[BitrateLaw]:
    """Return the laws of NUM_DRAWS draws of the trials with replacement.

    All search their optimum within the rates and sizes of all trials.
    """
    rng = np.random.default_rng(seed)
    whole = fit(trials)
    laws: list[BitrateLaw] = []
    while len(laws) < NUM_DRAWS:
        drawn = [trials[i] for i in rng.integers(len(trials), size=len(trials))]
        bitrates, sizes, lengths = _distinct(drawn)
        if bitrates >= MIN_BITRATES and sizes >= MIN_SIZES and lengths >= MIN_LENGTHS:
            law = fit(drawn)
            laws.append(dataclasses.replace(law, rates=whole.rates, sizes=whole.sizes))
    return laws


def interval(values: Sequence[float], mass: float = 0.9) -> tuple[float, float]:
    """Return the central interval that holds `mass` of the values."""
    low, high = np.quantile(values, [(1 - mass) / 2, (1 + mass) / 2])
    return float(low), float(high)


def leave_one_out(trials: Sequence[BudgetTrial]) -> np.ndarray:
    """Return each trial's distance of samples as a fit to all others predicts it."""
    predicted = []
    for i, left_out in enumerate(trials):
        law = fit([*trials[:i], *trials[i + 1 :]])
        predicted.append(
            law.samples(
                left_out.rate_bits, left_out.flops_per_image, left_out.num_images
            )
        )
    return np.asarray(predicted)


def leave_one_out_error(trials: Sequence[BudgetTrial]) -> float:
    """Return the median relative error of the distance of a trial that was left out."""
    measured = np.asarray([t.samples for t in trials])
    return float(np.median(np.abs(leave_one_out(trials) / measured - 1.0)))
