"""The best bitrate at each budget of training compute, from the trials of a sweep."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from ul.core import markdown
from ul.planning import bitrate_law
from ul.planning.bitrate_law import BitrateLaw, BudgetTrial
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

    def factor(self, rate_bits: float) -> float | None:
        """Return the loss factor of a rate, or None outside of the sweep's rates.

        It is interpolated between the measured trials, linearly in the logarithm of the
        rate.
        """
        rates = np.log([t.rate_bits for t in self.trials])
        order = np.argsort(rates)
        rate = np.log(rate_bits)
        if not rates.min() <= rate <= rates.max():
            return None
        return float(np.interp(rate, rates[order], np.asarray(self.factors)[order]))


def read_trials(path: str) -> SweepTrials:
    """Read the trials of stage 2 in a sweep's folder.

    Raises:
      ConfigError, DataError: as `folder.read_sweep`; too few trials for a fit.
    """
    rows = gather.gather_report(path, predict=False).rows
    names = next((m for m in METRICS if _has_both(rows, m)), METRICS[-1])
    trials: list[BudgetTrial] = []
    factors, used, skipped, num_pixels = [], [], [], 1
    for row in rows:
        numbers = _numbers(row, names)
        needed = ("rate_bpp", "base_rate_bpp", *names)
        missing = [name for name in needed if name not in numbers]
        stage1 = next((s for s in row.trial.stages if not s.is_stage2), None)
        if missing or row.cost.stage2 is None or stage1 is None or stage1.stage is None:
            lacks = ", ".join(missing) or "its training cost"
            skipped.append(f"{row.trial.name}: without {lacks}")
            continue
        num_pixels = int(np.prod(stage1.stage.image_shape[:-1]))
        bits = [numbers[name] * num_pixels for name in needed[:2]]
        distances = (numbers[name] for name in names)
        trials.append(BudgetTrial(bits[0], row.cost.stage2, bits[1], *distances))
        factors.append(_factor(stage1.config))
        used.append(row.trial.name)
    keep = bitrate_law.efficient(trials)
    trials = [*itertools.compress(trials, keep)]
    factors = [*itertools.compress(factors, keep)]
    skipped += [
        f"{name}: less compute reaches a smaller distance at its bitrate"
        for name, is_kept in zip(used, keep, strict=True)
        if not is_kept
    ]
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
    header = ["FLOPs of the base", "bits/pixel", "90 % of fits", "loss factor"]
    rows = [[*header, f"{sweep.metric} of samples", "times the sweep's largest budget"]]
    for flops in budgets:
        best = float(law.best_rate_bits(flops))
        others = [float(other.best_rate_bits(flops)) for other in laws]
        ends = (end / sweep.num_pixels for end in bitrate_law.interval(others))
        factor = sweep.factor(best)
        rows.append(
            [
                f"{flops:.3g}",
                f"{best / sweep.num_pixels:.3g}",
                " to ".join(f"{end:.3g}" for end in ends),
                "outside of the sweep" if factor is None else f"{factor:.3g}",
                f"{float(law.samples(best, flops)):.3g}",
                f"{flops / high:.3g}",
            ]
        )
    error = bitrate_law.leave_one_out_error(sweep.trials)
    return (
        f"{markdown.table(rows)}\n\n{describe(law)}\nMedian error of a trial that was left "
        f"out of the fit: {error:.1%}, of {len(sweep.trials)} trials."
    )


def describe(law: BitrateLaw) -> str:
    """Return the fitted equations, with R in mean bits and C in mean FLOPs of the sweep."""
    return (
        f"Fit, for R in {law.mean_bits:.4g} bits per image and C in {law.mean_flops:.4g} "
        f"FLOPs: distance of samples = {law.b:.3g} R^-{law.s:.2f} + {law.a:.3g} "
        f"R^{law.p:.2f} C^-{law.q:.2f}; bits of the base / R = {law.r:.3g} + {law.e:.3g} "
        f"R^{law.u:.2f} C^-{law.v:.2f}."
    )
