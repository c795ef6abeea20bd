"""The best bitrate at each budget of training compute, from the trials of a sweep."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ul.core import markdown
from ul.planning import bitrate_law
from ul.planning.bitrate_law import BitrateLaw, BudgetTrial, Excess
from ul.sweeps.report import gather
from ul.sweeps.report.rows import TrialRow

# Distances of reconstructions and samples by the same features, the preferred ones first.
# Decoded training images have the reference and the count of the samples; held-out
# reconstructions (rfid) have neither.
METRICS = (("fid_decoded", "fid"), ("frechet_decoded", "frechet"))


@dataclasses.dataclass(frozen=True)
class SweepTrials:
    """The trials that can be fitted, with what translates a rate into a setting.

    metric: the key of the distance of samples. num_pixels: of an image. factors: the loss
    factor of each trial. skipped: trials that the fit does not use, with the reason.
    """

    trials: tuple[BudgetTrial, ...]
    metric: str
    num_pixels: int
    factors: tuple[float, ...]
    skipped: tuple[str, ...]

    def factor(self, rate_bits: float) -> float:
        """Return the loss factor of a rate, or that of the closest rate of the sweep.

        It is interpolated between the measured trials, linearly in the logarithm of the
        rate.
        """
        rates = np.log([t.rate_bits for t in self.trials])
        order = np.argsort(rates)
        factors = np.asarray(self.factors)[order]
        return float(np.interp(np.log(rate_bits), rates[order], factors))


def read_trials(path: str) -> SweepTrials:
    """Read the trials of stage 2 in a sweep's folder.

    Raises:
      ConfigError, DataError: as `folder.read_sweep`; too few trials for a fit.
    """
    rows = gather.gather_report(path, predict=False).rows
    names = next((m for m in METRICS if _has_both(rows, m)), METRICS[-1])
    trials: list[BudgetTrial] = []
    factors, skipped, num_pixels = [], [], 1
    for row in rows:
        numbers = _numbers(row, names)
        needed = ("rate_bpp", "base_rate_bpp", *names)
        missing = [name for name in needed if name not in numbers]
        stage1, stage2 = (
            next((s for s in row.trial.stages if s.is_stage2 is is_stage2), None)
            for is_stage2 in (False, True)
        )
        if (
            missing
            or row.cost.stage2 is None
            or stage1 is None
            or stage1.stage is None
            or stage2 is None
        ):
            lacks = ", ".join(missing) or "its training cost"
            skipped.append(f"{row.trial.name}: without {lacks}")
            continue
        num_pixels = int(np.prod(stage1.stage.image_shape[:-1]))
        rate, base = (numbers[name] * num_pixels for name in needed[:2])
        images = stage2.batch_size * stage2.trained_steps
        distances = (numbers[name] for name in names)
        size = row.cost.stage2 / images
        trials.append(BudgetTrial(rate, size, images, base, *distances))
        factors.append(_factor(stage1.config))
    bitrate_law.check_trials(trials, skipped)
    return SweepTrials(
        tuple(trials), names[1], num_pixels, tuple(factors), tuple(skipped)
    )


def _has_both(rows: Sequence[TrialRow], names: tuple[str, str]) -> bool:
    return any(set(names) <= _numbers(row, names).keys() for row in rows)


def _numbers(row: TrialRow, names: Sequence[str]) -> dict[str, float]:
    """Return a trial's numbers by metric, without guidance where there is a choice.

    Those of `names` are of the largest number of examples that all of them have.
    """
    ordered = sorted(row.values.items(), key=lambda i: -(i[0].guidance or 1.0))
    by_count: dict[int | None, dict[str, float]] = {}
    for column, value in ordered:
        by_count.setdefault(column.num_examples, {})[column.metric] = value.value
    numbers = {k: v for part in by_count.values() for k, v in part.items()}
    common = [n for n, part in by_count.items() if set(names) <= part.keys()]
    if not common:
        return {k: v for k, v in numbers.items() if k not in names}
    return numbers | by_count[max(common, key=lambda n: n or 0)]


def _factor(config) -> float:
    return float(config["loss"]["weighting"]["factor"])


def recommend(sweep: SweepTrials, budgets: Sequence[float]) -> str:
    """Return a Markdown table of the best rate at each budget, with intervals and errors.

    budgets: FLOPs of training the base model; by default three from the sweep's smallest to
    its largest, and ten times that.

    Raises:
      ConfigError: a budget is far outside of the sweep's.
    """
    low, high = (f(t.flops for t in sweep.trials) for f in (min, max))
    budgets = list(budgets) or [*np.geomspace(low, high, 3), 10 * high]
    for flops in budgets:
        bitrate_law.check_budget(flops, sweep.trials)
    law = bitrate_law.fit(sweep.trials)
    laws = bitrate_law.bootstrap(sweep.trials)
    rows = [
        [
            "FLOPs of the base", "bits/pixel", "90 % of fits", "loss factor",
            "FLOPs per image", "images", f"{sweep.metric} of samples",
            "times the sweep's largest budget",
        ]
    ]  # fmt: skip
    for flops in budgets:
        best = law.best(flops)
        ends = bitrate_law.interval([other.best(flops).rate_bits for other in laws])
        bounds = (f"{end / sweep.num_pixels:.3g}" for end in ends)
        rows.append(
            [
                f"{flops:.3g}",
                f"{best.rate_bits / sweep.num_pixels:.3g}{_edge(law, best.rate_bits)}",
                " to ".join(bounds),
                f"{sweep.factor(best.rate_bits):.3g}",
                f"{best.flops_per_image:.3g}",
                f"{flops / best.flops_per_image:.3g}",
                f"{best.samples:.3g}",
                f"{flops / high:.3g}",
            ]
        )
    error = bitrate_law.leave_one_out_error(sweep.trials)
    return (
        f"{markdown.table(rows)}\n\n{describe(law)}\nMedian error of a trial that was left "
        f"out of the fit: {error:.1%}, of {len(sweep.trials)} trials."
    )


def _edge(law: BitrateLaw, rate_bits: float) -> str:
    """Say whether a rate is at the edge of the sweep's rates, and the best one beyond it."""
    lowest, highest = law.rates
    if np.isclose(rate_bits, lowest, rtol=1e-3):
        return ", the sweep's lowest"
    return ", the sweep's highest" if np.isclose(rate_bits, highest, rtol=1e-3) else ""


def describe(law: BitrateLaw) -> str:
    """Return the fitted equations and what their letters are relative to."""
    scales = law.scales
    return (
        f"Fit, for a rate R in {scales.rate_bits:.4g} bits per image, a size N in "
        f"{scales.flops_per_image:.4g} training FLOPs per image and D in "
        f"{scales.num_images:.4g} images: distance of samples = {law.f:.3g} R^{-law.s:.2f} + "
        f"{_terms(law.distance)}; bits of the base / R = {law.r:.3g} + {_terms(law.share)}."
    )


def _terms(excess: Excess) -> str:
    e = excess
    size = f"{e.a:.3g} R^{e.p:.2f} N^{-e.m:.2f}"
    return f"{size} + {e.b:.3g} R^{e.q:.2f} D^{-e.n:.2f}"
