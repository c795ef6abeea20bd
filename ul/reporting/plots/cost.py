"""FID, or the pixel Frechet distance, against training FLOPs."""

from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.reporting import costs, published
from ul.reporting.plots.style import SIZE, heading, plain, png, series, slug
from ul.reporting.rows import Column, Figure, Report

FAMILIES = {"EDM2": "#6b7280", "DiT": "#b08968", "SiD2": "#7c9a6d", "UL": "#8e7cc3"}


def against_flops(report: Report) -> list[Figure]:
    """FID, or the pixel Frechet distance, against training FLOPs."""
    figures = [
        figure
        for column in report.columns
        if column.metric in ("fid", "frechet")
        for figure in _cost_figure(report, column)
    ]
    if not any(c.metric == "fid" for c in report.columns):
        figures.append(_published_alone())
    return figures


def _cost_figure(report: Report, column: Column) -> list[Figure]:
    points = []
    for row in report.rows:
        if column in row.values:
            value = row.values[column]
            cost = costs.training(row.trial, value.record)
            if cost.together:
                points.append((row, cost, value.value))
    if not points:
        return []
    real = column.metric == "fid"
    if real:
        figure, (axis, beside) = _two_panels()
        _references(axis, beside)
    else:
        figure, axis = plt.subplots(figsize=SIZE)
    for row, cost, y in points:
        colour, marker = series(report.rows)[row.series]
        alone = cost.stage2 or cost.together
        axis.plot([alone, cost.together], [y, y], ":", color=colour, linewidth=0.9)
        axis.scatter(cost.together, y, 34, "white", marker, edgecolors=colour, zorder=3)
        axis.scatter(alone, y, 34, colour, marker, zorder=4)
        axis.annotate(
            plain(row.label), (alone, y), xytext=(5, 4), textcoords="offset points",
            fontsize=7.5, color="#4b5563",
        )  # fmt: skip
    for name, (colour, marker) in series(report.rows).items():
        axis.scatter([], [], 34, colour, marker, label=plain(name) or "this sweep")
    axis.set(
        xscale="log",
        xlabel="training FLOPs (1 MAC = 2 FLOP)",
        ylabel=plain(column.title),
        title=plain(heading(column)),
    )
    _a_decade(axis)
    axis.legend(loc="best")
    caption = "Filled: stage 2 alone; hollow: both stages together."
    if real:
        caption += (
            f" Grey and brown: published on {published.DATA}, FID of 50,000 samples; they "
            "do not compare with a FID on other data or of fewer samples."
        )
    else:
        caption += " Not FID: no published figure compares with it."
    title = f"{heading(column)} against training FLOPs"
    return [Figure(f"cost-{slug(column.key)}", title, caption, png(figure))]


def _a_decade(axis) -> None:
    """At least a factor of ten on the x axis, so that it has a labelled tick or two."""
    low, high = axis.get_xlim()
    if high < 10.0 * low:
        middle = (low * high) ** 0.5
        axis.set_xlim(middle / 10**0.5, middle * 10**0.5)


def _two_panels():
    """FIDs whose cost is known, and beside them those whose cost is not."""
    return plt.subplots(
        1, 2, figsize=(7.6, 4.2), sharey=True, gridspec_kw={"width_ratios": (3.4, 1)}
    )


def _references(axis, beside) -> None:
    """Published points: with their FLOPs on `axis`, the others in the panel beside."""
    for family in FAMILIES:
        for guided in (False, True):
            mine = [
                p
                for p in published.POINTS
                if p.family == family and p.guided == guided and p.training_flops
            ]
            if mine:
                axis.plot(
                    [p.training_flops for p in mine],
                    [p.fid for p in mine],
                    "o-" if guided else "o--",
                    markerfacecolor=FAMILIES[family] if guided else "white",
                    color=FAMILIES[family],
                    markersize=4.5,
                    linewidth=1,
                    label=f"{mine[0].family}{' guided' if guided else ''}, {published.DATA}",
                    zorder=1,
                )
    unknown = [p for p in published.POINTS if not p.training_flops]
    kinds = list(dict.fromkeys(p.name.partition(",")[0] for p in unknown))
    for p in unknown:
        at = kinds.index(p.name.partition(",")[0])
        beside.scatter(at, p.fid, 22, FAMILIES[p.family], zorder=2)
    beside.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right", fontsize=8)
    beside.set_xlim(-0.6, len(kinds) - 0.4)
    beside.set_title("cost not stated", fontsize=9)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def _published_alone() -> Figure:
    figure, (axis, beside) = _two_panels()
    _references(axis, beside)
    axis.set(
        xscale="log",
        xlabel="training FLOPs of the generator (1 MAC = 2 FLOP)",
        ylabel=f"FID@50k, {published.DATA}",
        title=f"Published: FID against training FLOPs, {published.DATA}",
    )
    axis.legend(loc="upper right")
    caption = (
        "No trial of this sweep has a FID, so these stand alone: they are of other data, "
        "other sizes and another metric than anything measured here. Autoencoders' "
        "training is not counted."
    )
    return Figure("published", "Published FID against FLOPs", caption, png(figure))
