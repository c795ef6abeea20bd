"""The report's plots as PNGs: rate against quality, quality against cost, losses."""

import io
import re
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from etils import epath

from ul.reporting import costs, numbers, published, swept
from ul.reporting.rows import Column, Curve, Figure, Report, Row, Value
from ul.train import curves

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend comes first)

# Okabe and Ito's colours, told apart by all eyes; markers tell apart what repeats them.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1b1b")
MARKERS = "osD^vP"
GREY = "#8a8f98"
FAMILIES = {"EDM2": "#6b7280", "DiT": "#b08968", "SiD2": "#7c9a6d", "UL": "#8e7cc3"}
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.edgecolor": "#9aa0a8",
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.constrained_layout.use": True,
    # A trial's name may have a dollar in it.
    "text.parse_math": False,
}
DPI = 130
SIZE = (5.4, 4.0)
# A rate range wider than this is drawn on a log axis.
WIDE = 8.0
MOST_LABELS = 16
MOST_SMALL = 48
LOSSES = ("loss_bpp", "rate_bpp", "base_bpp", "eval_rate_bpp", "eval_base_bpp")


def all_figures(report: Report) -> list[Figure]:
    """Those that the sweep has numbers for, in the page's order."""
    with plt.rc_context(STYLE):
        return [
            *_rate(report),
            *_predicted(report),
            *_cost(report),
            *_losses(report),
        ]


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def heading(column: Column) -> str:
    """Name, guidance and count of a column, for a plot's axis."""
    title = column.title
    if column.guidance not in (None, 1.0):
        title += f", guidance {column.guidance:g}"
    if column.examples is not None and "@" not in column.title:
        title += f" (n = {column.examples:,})"
    return title


def _png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    plt.close(figure)
    return out.getvalue()


def _series(rows: Iterable[Row]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each line, in the order of the trials."""
    names = list(dict.fromkeys(row.series for row in rows))
    return {
        name: (
            COLOURS[i % len(COLOURS)],
            MARKERS[i // len(COLOURS) % len(MARKERS)],
        )
        for i, name in enumerate(names)
    }


def _rate_of(row: Row, value: Value) -> tuple[float, float] | None:
    """Bits/pixel and its standard error: of the same evaluation, else the trial's."""
    own = next(
        (
            v
            for c, v in row.values.items()
            if c.metric == "rate_bpp" and v.record is value.record
        ),
        row.rate(),
    )
    return None if own is None else (own.value, own.sem or 0.0)


def _rate(report: Report) -> list[Figure]:
    """Bits/pixel against each quality."""
    figures = []
    for column in report.columns:
        if not numbers.metric(column).drawn:
            continue
        points = [
            (row, rate, row.values[column].value)
            for row in report.rows
            if column in row.values
            and (rate := _rate_of(row, row.values[column])) is not None
        ]
        if points:
            figures.append(_rate_figure(report, column, points))
    return figures


def _rate_figure(report: Report, column: Column, points) -> Figure:
    figure, axis = plt.subplots(figsize=SIZE)
    styles = _series(report.rows)
    on_curve = column.metric == "psnr_db"
    wanted = {}
    for row, _, y in points:
        if row.prediction is not None:
            height = row.prediction.psnr_db if on_curve else y
            wanted[row.trial.name] = (row.prediction.bpp, height)
    xs = [rate for _, (rate, _), _ in points] + [x for x, _ in wanted.values()]
    _rate_axis(axis, xs)
    for name, (colour, marker) in styles.items():
        mine = sorted((p for p in points if p[0].series == name), key=lambda p: p[1])
        if mine:
            axis.errorbar(
                [rate for _, (rate, _), _ in mine],
                [y for _, _, y in mine],
                xerr=[sem for _, (_, sem), _ in mine],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.3,
                capsize=2.5,
                label=name or "measured",
                zorder=3,
            )
    _mark(axis, points)
    for i, (row, (rate, _), y) in enumerate(p for p in points if p[0].trial.name in wanted):
        px, py = wanted[row.trial.name]
        colour = styles[row.series][0]
        axis.plot([rate, px], [y, py], ":", color=colour, linewidth=0.9, zorder=1)
        label = None if i else "planner's prediction"
        axis.scatter(px, py, 28, colour, marker="x", linewidths=1.2, label=label, zorder=2)
    if on_curve:
        _gaussian(axis, report.curves)
    axis.set(xlabel="bits/pixel", ylabel=heading(column), title=f"{heading(column)}")
    axis.legend(loc="best")
    return Figure(
        f"rate-{slug(column.key)}",
        f"Bits/pixel against {heading(column)}",
        _rate_caption(report, column, bool(wanted)),
        _png(figure),
    )


def _rate_caption(report: Report, column: Column, predicted: bool) -> str:
    said = ["Bars: one standard error of the rate."]
    main = report.swept and swept.along(dict.fromkeys(report.swept))
    if main:
        said.append(f"Numbers at the points: {main}.")
    if predicted and column.metric == "psnr_db":
        said.append("Crosses: the planner's prediction, dotted to what was measured.")
    elif predicted:
        said.append("Crosses: the rate that the planner predicted, at the measured height.")
    if column.metric == "psnr_db" and report.curves:
        said.append(
            "Grey: rate and distortion of Gaussian data with the training images' "
            "spectrum; images are not Gaussian and may lie above. The PSNR is the mean of "
            "each image's, which is higher than that of the mean squared error."
        )
    if "rechet" in column.metric:
        said.append("Pixel Frechet distance: on 8x8 block means, no network; not FID.")
    return " ".join(said)


def _rate_axis(axis, xs: Sequence[float]) -> None:
    low, high = min(xs), max(xs)
    if low > 0 and high / low > WIDE:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.3, high * 1.3)
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    else:
        pad = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
        axis.set_xlim(low - pad, high + pad)


def _mark(axis, points) -> None:
    """Small numbers beside the points, unless they are too many to read."""
    if len(points) <= MOST_LABELS:
        for row, (rate, _), y in points:
            axis.annotate(
                row.label,
                (rate, y),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7.5,
                color="#4b5563",
            )


def _gaussian(axis, known: Sequence[Curve]) -> None:
    """The Gaussian rate-distortion curves within the axis' rates."""
    low, high = axis.get_xlim()
    for i, curve in enumerate(known):
        inside = np.linspace(max(low, curve.bpp[0]), high, 200)
        for style, values, label in (
            ("-", curve.sampled_db, "Gaussian bound, sampled (2 D)"),
            ("--", curve.mean_db, "Gaussian bound, posterior mean (D)"),
        ):
            axis.plot(
                inside,
                np.interp(inside, curve.bpp, values),
                style,
                color=GREY,
                linewidth=1.1,
                label=None if i else label,
                zorder=0,
            )


def _predicted(report: Report) -> list[Figure]:
    """Bits/pixel as predicted and as measured."""
    points = [
        (row, row.prediction.bpp, rate)
        for row in report.rows
        if row.prediction is not None and (rate := row.rate()) is not None
    ]
    if not points:
        return []
    figure, axis = plt.subplots(figsize=SIZE)
    for row, x, rate in points:
        colour, marker = _series(report.rows)[row.series]
        axis.errorbar(
            x, rate.value, yerr=rate.sem, color=colour, marker=marker, capsize=2.5
        )
        axis.annotate(
            row.label, (x, rate.value), xytext=(5, 4), textcoords="offset points",
            fontsize=7.5, color="#4b5563",
        )  # fmt: skip
    ends = [0.0, 1.08 * max(max(x, rate.value) for _, x, rate in points)]
    axis.plot(ends, ends, color=GREY, linewidth=1, label="as predicted", zorder=0)
    axis.set(
        xlabel="bits/pixel predicted by the planner",
        ylabel="bits/pixel measured",
        title="Predicted and measured rate",
        xlim=ends,
        ylim=ends,
    )
    axis.legend(loc="upper left")
    caption = (
        "Water-filling of the training images' spectrum at each trial's loss factor and "
        "bias: exact for Gaussian data, ideal networks and training to the end."
    )
    return [Figure("predicted", "Predicted and measured rate", caption, _png(figure))]


def _cost(report: Report) -> list[Figure]:
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
        colour, marker = _series(report.rows)[row.series]
        alone = cost.stage2 or cost.together
        axis.plot([alone, cost.together], [y, y], ":", color=colour, linewidth=0.9)
        axis.scatter(cost.together, y, 34, "white", marker, edgecolors=colour, zorder=3)
        axis.scatter(alone, y, 34, colour, marker, zorder=4)
        axis.annotate(
            row.label, (alone, y), xytext=(5, 4), textcoords="offset points",
            fontsize=7.5, color="#4b5563",
        )  # fmt: skip
    for name, (colour, marker) in _series(report.rows).items():
        axis.scatter([], [], 34, colour, marker, label=name or "this sweep")
    axis.set(
        xscale="log",
        xlabel="training FLOPs (1 MAC = 2 FLOP)",
        ylabel=heading(column),
        title=f"{heading(column)} against training FLOPs",
    )
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
    return [Figure(f"cost-{slug(column.key)}", title, caption, _png(figure))]


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
    ticks = matplotlib.ticker
    axis.yaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticks.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(ticks.NullFormatter())


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
    return Figure("published", "Published FID against FLOPs", caption, _png(figure))


def _losses(report: Report) -> list[Figure]:
    """Small multiples of the losses, a figure for each stage."""
    figures = []
    for which in ("stage 1", "stage 2"):
        series = {}
        for row in report.rows:
            for stage in row.trial.stages:
                if stage.config is not None and swept.role(stage) == which:
                    found = _read(epath.Path(report.sweep.path) / stage.workdir)
                    series |= {row.trial.name: found} if found else {}
        shown = dict(list(series.items())[:MOST_SMALL])
        if shown:
            figures.append(_multiples(which, shown, len(series)))
    return figures


def _read(workdir) -> dict[str, np.ndarray]:
    try:
        found = curves.read(workdir)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return {n: found[n] for n in LOSSES if n in found}


def _multiples(which: str, series: dict[str, dict], count: int) -> Figure:
    columns = min(4, len(series))
    lines = -(-len(series) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(max(5.4, 3.1 * columns), 2.3 * lines + 0.4),
        sharey=True,
        squeeze=False,
    )
    for axis, (name, found) in zip(axes.flat, series.items(), strict=False):
        for key, points in found.items():
            colour = COLOURS[LOSSES.index(key)]
            axis.plot(*points.T, color=colour, linewidth=1.0, label=key)
        axis.set_title(name if len(name) <= 34 else f"…{name[-33:]}", fontsize=9)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    for axis in axes.flat[len(series) :]:
        axis.set_visible(False)
    axes[0, 0].legend(loc="best", fontsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("bits/pixel", fontsize=9)
    more = f" The first {len(series)} of {count} trials." if count > len(series) else ""
    return Figure(
        f"losses-{slug(which)}",
        f"Losses of {which}",
        f"In bits/pixel, one axis for all.{more}",
        _png(figure),
    )
