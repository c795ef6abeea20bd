"""FID, or the pixel Frechet distance, against training FLOPs."""

from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import costs, published
from ul.sweeps.report.plots.style import SIZE, heading, note, plain, png, series, slug
from ul.sweeps.report.rows import Column, Figure, Report

FAMILIES = {"EDM2": "#6b7280", "DiT": "#b08968", "SiD2": "#7c9a6d", "UL": "#8e7cc3"}


def against_flops(report: Report) -> list[Figure]:
    """FID against training FLOPs, by itself and among the published; without any FID
    the pixel Frechet distance by itself, and the published alone."""
    fids = [c for c in report.columns if c.metric == "fid"]
    if fids:
        pairs = [(c, beside) for c in fids for beside in (False, True)]
        return [f for pair in pairs for f in _figure(report, *pair)]
    frechets = [c for c in report.columns if c.metric == "frechet"]
    return [*(f for c in frechets for f in _figure(report, c, False)), _alone()]


def _figure(report: Report, column: Column, among: bool) -> list[Figure]:
    """`among`: the published points; none if no trial has the number and its cost."""
    points = []
    for row in report.rows:
        if column in row.values:
            cost = costs.training(row.trial, row.values[column].record)
            both = cost.together
            if both is not None:
                alone = both if cost.stage2 is None else cost.stage2
                points.append((row, alone, both, row.values[column].value))
    if not points:
        return []
    if among:
        figure, (axis, beside) = _two_panels()
        _references(axis, beside)
    else:
        figure, axis = plt.subplots(figsize=SIZE)
    styles = series(report.rows)
    for row, alone, both, y in points:
        colour, marker = styles[row.series]
        axis.plot([alone, both], [y, y], ":", color=colour, linewidth=0.9)
        axis.scatter(both, y, 34, "white", marker=marker, edgecolors=colour, zorder=3)
        axis.scatter(alone, y, 34, colour, marker=marker, zorder=4)
        if not among:
            note(axis, row.label, (alone, y))
    for name, (colour, marker) in styles.items():
        axis.scatter(
            [], [], 34, colour, marker=marker, label=plain(name) or "this sweep"
        )
    axis.set(
        xscale="log",
        xlabel="training FLOPs (1 MAC = 2 FLOP)",
        ylabel=plain(column.title),
        title=plain(heading(column)),
    )
    _a_decade(axis)
    axis.legend(loc="best")
    name = f"cost-{slug(column.key)}" + ("-published" if among else "")
    title = f"{heading(column)} against training FLOPs"
    return [Figure(name, title, _caption(column, among), png(figure))]


def _caption(column: Column, among: bool) -> str:
    said = "Filled: stage 2 alone; hollow: both stages together."
    if among:
        return (
            f"{said} Hollow and filled small points, and the panel on the right: published "
            f"on {published.DATA}, FID of 50,000 samples; they do not compare with a FID on "
            "other data, at another size or of fewer samples."
        )
    if column.metric == "frechet":
        said += (
            " Pixel Frechet distance: not FID, no published figure compares with it."
        )
    return said


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


def _alone() -> Figure:
    figure, (axis, beside) = _two_panels()
    _references(axis, beside)
    axis.set(
        xscale="log",
        xlabel="training FLOPs of the generator (1 MAC = 2 FLOP)",
        ylabel=f"FID@50k, {published.DATA}",
        title=f"Published: FID against training FLOPs, {published.DATA}",
    )
    axis.legend(loc="upper left")
    caption = (
        "No trial of this sweep has a FID, so these stand alone: they are of other data, "
        "other sizes and another metric than anything measured here. Autoencoders' "
        "training is not counted."
    )
    return Figure("published", "Published FID against FLOPs", caption, png(figure))
