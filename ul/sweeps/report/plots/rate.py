"""Bits/pixel against each quality, and against what was predicted."""

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import numbers, swept
from ul.sweeps.report.plots.style import (
    GREY,
    SIZE,
    heading,
    note,
    plain,
    png,
    series,
    slug,
)
from ul.sweeps.report.rows import Column, Curve, Figure, Report, Row, Value

# A rate range wider than this is drawn on a log axis.
WIDE = 8.0
MOST_LABELS = 16


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


def qualities(report: Report) -> list[Figure]:
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
    styles = series(report.rows)
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
                label=plain(name) or "measured",
                zorder=3,
            )
    _mark(axis, points)
    for i, (row, (rate, _), y) in enumerate(
        p for p in points if p[0].trial.name in wanted
    ):
        px, py = wanted[row.trial.name]
        colour = styles[row.series][0]
        axis.plot([rate, px], [y, py], ":", color=colour, linewidth=0.9, zorder=1)
        label = None if i else "planner's prediction"
        axis.scatter(
            px, py, 28, colour, marker="x", linewidths=1.2, label=label, zorder=2
        )
    if on_curve:
        _gaussian(axis, report.curves)
    axis.set(
        xlabel="bits/pixel",
        ylabel=plain(column.title),
        title=plain(heading(column)),
    )
    axis.legend(loc="best")
    return Figure(
        f"rate-{slug(column.key)}",
        f"Bits/pixel against {heading(column)}",
        _rate_caption(report, column, bool(wanted)),
        png(figure),
    )


def _rate_caption(report: Report, column: Column, predicted: bool) -> str:
    said = ["Bars: one standard error of the rate."]
    main = report.swept and swept.along(dict.fromkeys(report.swept))
    if main:
        said.append(f"Numbers at the points: {main}.")
    if predicted and column.metric == "psnr_db":
        said.append("Crosses: the planner's prediction, dotted to what was measured.")
    elif predicted:
        said.append(
            "Crosses: the rate that the planner predicted, at the measured height."
        )
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
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        pad = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
        axis.set_xlim(low - pad, high + pad)


def _mark(axis, points) -> None:
    """Small numbers beside the points, unless they are too many to read."""
    if len(points) <= MOST_LABELS:
        for row, (rate, _), y in points:
            note(axis, row.label, (rate, y))


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


def predicted(report: Report) -> list[Figure]:
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
        colour, marker = series(report.rows)[row.series]
        axis.errorbar(
            x, rate.value, yerr=rate.sem, color=colour, marker=marker, capsize=2.5
        )
        note(axis, row.label, (x, rate.value))
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
    return [Figure("predicted", "Predicted and measured rate", caption, png(figure))]
