"""Draw FID, or the pixel Frechet distance, against training FLOPs."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import costs, published
from ul.sweeps.report.plots.style import (
    FIGURE_SIZE,
    annotate,
    escape_mathtext,
    finish,
    full_title,
    series_styles,
    slug,
)
from ul.sweeps.report.rows import MetricColumn, ReportFigure, SweepReport, TrialRow

FAMILY_COLORS = {
    "EDM2": "#6b7280",
    "DiT": "#b08968",
    "SiD2": "#7c9a6d",
    "UL": "#8e7cc3",
}


class CostPoint(NamedTuple):
    """A trial's training FLOPs, of its generator alone and in total, and its distance."""

    row: TrialRow
    generator_flops: float
    total_flops: float
    distance: float


def quality_against_flops(report: SweepReport) -> list[ReportFigure]:
    """Draw FID against training FLOPs; without any FID the pixel Frechet distance.

    Published results are drawn beside an FID on their data.
    """
    fids = [c for c in report.columns if c.metric == "fid"]
    columns = fids or [c for c in report.columns if c.metric == "frechet"]
    pairs = [(c, False) for c in columns]
    if published.is_comparable(report.sweep.trials):
        pairs += [(c, True) for c in fids]
    return [f for pair in pairs for f in _cost_figure(report, *pair)]


def _cost_points(report: SweepReport, column: MetricColumn) -> list[CostPoint]:
    points = []
    for row in report.rows:
        if column not in row.values:
            continue
        value = row.values[column]
        cost = costs.training_cost(row.trial, value.record)
        if cost.total is not None:
            generator = cost.total if cost.stage2 is None else cost.stage2
            points.append(CostPoint(row, generator, cost.total, value.value))
    return points


def _cost_figure(
    report: SweepReport, column: MetricColumn, with_published: bool
) -> list[ReportFigure]:
    """Draw one metric; returns no figure if no trial has both the number and its cost."""
    points = _cost_points(report, column)
    if not points:
        return []
    if with_published:
        figure, (axis, side_axis) = _two_panels()
        _draw_published(axis, side_axis)
    else:
        figure, axis = plt.subplots(figsize=FIGURE_SIZE)
    _draw_trials(axis, points, series_styles(report.rows), labels=not with_published)
    axis.set(
        xscale="log",
        xlabel="training FLOPs (1 MAC = 2 FLOP)",
        ylabel=escape_mathtext(column.title),
        title=escape_mathtext(full_title(column)),
    )
    _span_a_decade(axis)
    axis.legend(loc="best")
    suffix = "-published" if with_published else ""
    return [
        finish(
            figure,
            name=f"cost-{slug(column.key)}{suffix}",
            title=f"{full_title(column)} against training FLOPs",
            caption=_caption(column, with_published),
        )
    ]


def _draw_trials(axis, points: Sequence[CostPoint], styles, *, labels: bool) -> None:
    """Draw each trial at the cost of stage 2 alone and at that of both stages."""
    for row, generator_flops, total_flops, y in points:
        color, marker = styles[row.series]
        axis.plot(
            [generator_flops, total_flops], [y, y], ":", color=color, linewidth=0.9
        )
        axis.scatter(
            total_flops, y, 34, "white", marker=marker, edgecolors=color, zorder=3
        )
        axis.scatter(generator_flops, y, 34, color, marker=marker, zorder=4)
        if labels:
            annotate(axis, row.label, (generator_flops, y))
    for name, (color, marker) in styles.items():
        label = escape_mathtext(name) or "this sweep"
        axis.scatter([], [], 34, color, marker=marker, label=label)


def _caption(column: MetricColumn, with_published: bool) -> str:
    caption = (
        "Filled points count the training of stage 2 alone, hollow points that of both "
        "stages."
    )
    if with_published:
        return (
            f"{caption} The small points and the panel on the right are published results "
            f"on {published.DATASET}, FID of 50,000 samples. They cannot be compared with "
            "an FID on other data, at another resolution or of fewer samples."
        )
    if column.metric == "frechet":
        caption += (
            " The pixel Frechet distance is not FID and cannot be compared with any "
            "published figure."
        )
    return caption


def _span_a_decade(axis) -> None:
    """Widen the x axis to a factor of ten, so that at least one tick has a label."""
    low, high = axis.get_xlim()
    if high < 10.0 * low:
        middle = (low * high) ** 0.5
        axis.set_xlim(middle / 10**0.5, middle * 10**0.5)


def _two_panels():
    """Return a figure and two axes: for results with a known cost, and for the others."""
    return plt.subplots(
        1, 2, figsize=(7.6, 4.2), sharey=True, gridspec_kw={"width_ratios": (3.4, 1)}
    )


def _draw_published(axis, side_axis) -> None:
    """Draw published results against their FLOPs, and those without on the side axis."""
    for family, color in FAMILY_COLORS.items():
        for guided in (False, True):
            results = [
                r
                for r in published.RESULTS
                if r.family == family and r.guided == guided and r.training_flops
            ]
            if results:
                axis.plot(
                    [r.training_flops for r in results],
                    [r.fid for r in results],
                    "o-" if guided else "o--",
                    markerfacecolor=color if guided else "white",
                    color=color,
                    markersize=4.5,
                    linewidth=1,
                    label=f"{family}{' guided' if guided else ''}, {published.DATASET}",
                    zorder=1,
                )
    without_cost = [r for r in published.RESULTS if not r.training_flops]
    names = list(dict.fromkeys(r.name.partition(",")[0] for r in without_cost))
    for r in without_cost:
        x = names.index(r.name.partition(",")[0])
        side_axis.scatter(x, r.fid, 22, FAMILY_COLORS[r.family], zorder=2)
    side_axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    side_axis.set_xlim(-0.6, len(names) - 0.4)
    side_axis.set_title("cost unknown", fontsize=9)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
