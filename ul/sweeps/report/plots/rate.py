"""Draw quality against bits/pixel, and measured against predicted bits/pixel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import numbers, swept
from ul.sweeps.report.plots.style import (
    FIGURE_SIZE,
    GRAY,
    annotate,
    escape_mathtext,
    finish,
    full_title,
    series_styles,
    slug,
)
from ul.sweeps.report.rows import (
    MetricColumn,
    MetricValue,
    RateDistortionCurve,
    ReportFigure,
    SweepReport,
    TrialRow,
)

# A range of rates that is wider than this factor is drawn on a logarithmic axis.
LOG_AXIS_RATIO = 8.0
MAX_LABELS = 16


class RatePoint(NamedTuple):
    """A trial's rate in bits/pixel and its quality, with the standard errors of both."""

    row: TrialRow
    bpp: float
    bpp_sem: float
    quality: float
    quality_sem: float


def _rate_point(row: TrialRow, value: MetricValue) -> RatePoint | None:
    """Return the value with the rate of the same evaluation, else with the trial's rate."""
    rate = next(
        (
            v
            for c, v in row.values.items()
            if c.metric == "rate_bpp" and v.record is value.record
        ),
        row.rate(),
    )
    if rate is None:
        return None
    return RatePoint(row, rate.value, rate.sem or 0.0, value.value, value.sem or 0.0)


def quality_against_rate(report: SweepReport) -> list[ReportFigure]:
    """Draw a figure for each metric of quality that a trial has a rate for."""
    figures = []
    for column in report.columns:
        if not numbers.metric(column).plotted:
            continue
        points = [
            point
            for row in report.rows
            if column in row.values
            and (point := _rate_point(row, row.values[column])) is not None
        ]
        if points:
            figures.append(_rate_figure(report, column, points))
    return figures


def _rate_figure(
    report: SweepReport, column: MetricColumn, points: Sequence[RatePoint]
) -> ReportFigure:
    figure, axis = plt.subplots(figsize=FIGURE_SIZE)
    styles = series_styles(report.rows)
    is_psnr = column.metric == "psnr_db"
    predicted = _predicted_points(points, is_psnr)
    _set_rate_axis(axis, [p.bpp for p in points] + [x for x, _ in predicted.values()])
    for name, (color, marker) in styles.items():
        line = sorted((p for p in points if p.row.series == name), key=lambda p: p[1:])
        if line:
            axis.errorbar(
                [p.bpp for p in line],
                [p.quality for p in line],
                xerr=[p.bpp_sem for p in line],
                yerr=[p.quality_sem for p in line],
                color=color,
                marker=marker,
                markersize=5,
                linewidth=1.3,
                capsize=2.5,
                label=escape_mathtext(name) or "measured",
                zorder=3,
            )
    if len(points) <= MAX_LABELS:  # more labels would be unreadable
        for p in points:
            annotate(axis, p.row.label, (p.bpp, p.quality))
    _draw_predicted(axis, points, predicted, styles)
    if is_psnr:
        _draw_gaussian(axis, report.curves)
    axis.set(
        xlabel="bits/pixel",
        ylabel=escape_mathtext(column.title),
        title=escape_mathtext(full_title(column)),
    )
    axis.legend(loc="best")
    return finish(
        figure,
        name=f"rate-{slug(column.key)}",
        title=f"{full_title(column)} against bits/pixel",
        caption=_rate_caption(report, column, bool(predicted)),
    )


def _predicted_points(
    points: Sequence[RatePoint], is_psnr: bool
) -> dict[str, tuple[float, float]]:
    """Return the predicted point of each trial by name.

    The planner predicts only rate and PSNR; for other metrics the measured quality is used.
    """
    return {
        p.row.trial.name: (
            p.row.prediction.bpp,
            p.row.prediction.sample_psnr_db if is_psnr else p.quality,
        )
        for p in points
        if p.row.prediction is not None
    }


def _draw_predicted(axis, points: Sequence[RatePoint], predicted, styles) -> None:
    """Mark the predicted points and connect them with the measured ones."""
    label: str | None = "planner's prediction"
    for p in points:
        if p.row.trial.name not in predicted:
            continue
        x, y = predicted[p.row.trial.name]
        color = styles[p.row.series][0]
        axis.plot([p.bpp, x], [p.quality, y], ":", color=color, linewidth=0.9, zorder=1)
        axis.scatter(x, y, 28, color, marker="x", linewidths=1.2, label=label, zorder=2)
        label = None  # one entry in the legend is enough


def _rate_caption(
    report: SweepReport, column: MetricColumn, has_predicted: bool
) -> str:
    is_psnr = column.metric == "psnr_db"
    sentences = [
        "The bars are one standard error over the evaluated images; metrics of whole sets "
        "have none."
    ]
    if report.swept_keys:
        key = swept.line_key(report.swept_keys)
        sentences.append(f"The numbers at the points are {key}.")
    if has_predicted and is_psnr:
        sentences.append(
            "Crosses are the planner's predictions; a dotted line connects each of them with "
            "the measured point."
        )
    elif has_predicted:
        sentences.append(
            "Crosses are the rates that the planner predicted, at the measured quality."
        )
    if is_psnr and report.curves:
        sentences.append(
            "Gray lines are rate and distortion of Gaussian data with the spectrum of the "
            "training images; images are not Gaussian and may lie above. PSNR is the mean "
            "over images, which is higher than the PSNR of the mean squared error."
        )
    if "rechet" in column.metric:
        sentences.append(
            "The pixel Frechet distance is computed on 8x8 block means without a network; "
            "it is not FID."
        )
    return " ".join(sentences)


def _set_rate_axis(axis, rates: Sequence[float]) -> None:
    low, high = min(rates), max(rates)
    if low > 0 and high / low > LOG_AXIS_RATIO:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.3, high * 1.3)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
        axis.set_xlim(low - margin, high + margin)


def _draw_gaussian(axis, curves: Sequence[RateDistortionCurve]) -> None:
    """Draw the Gaussian rate-distortion curves within the limits of the axis."""
    low, high = axis.get_xlim()
    for i, curve in enumerate(curves):
        bpp = np.linspace(max(low, curve.bpp[0]), high, 200)
        for line_style, psnr_db, label in (
            ("-", curve.sample_psnr_db, "Gaussian bound, sample (2 D)"),
            ("--", curve.mean_psnr_db, "Gaussian bound, posterior mean (D)"),
        ):
            axis.plot(
                bpp,
                np.interp(bpp, curve.bpp, psnr_db),
                line_style,
                color=GRAY,
                linewidth=1.1,
                label=None if i else label,
                zorder=0,
            )


def measured_against_predicted(report: SweepReport) -> list[ReportFigure]:
    """Draw measured against predicted bits/pixel, if a trial has both."""
    points = [
        (row, row.prediction.bpp, rate)
        for row in report.rows
        if row.prediction is not None and (rate := row.rate()) is not None
    ]
    if not points:
        return []
    figure, axis = plt.subplots(figsize=FIGURE_SIZE)
    styles = series_styles(report.rows)
    for row, predicted, rate in points:
        color, marker = styles[row.series]
        axis.errorbar(
            predicted,
            rate.value,
            yerr=rate.sem,
            color=color,
            marker=marker,
            capsize=2.5,
        )
        annotate(axis, row.label, (predicted, rate.value))
    largest = max(max(predicted, rate.value) for _, predicted, rate in points)
    limits = [0.0, 1.08 * largest]
    axis.plot(limits, limits, color=GRAY, linewidth=1, label="as predicted", zorder=0)
    title = "Measured against predicted rate"
    axis.set(
        xlabel="bits/pixel predicted by the planner",
        ylabel="bits/pixel measured",
        title=title,
        xlim=limits,
        ylim=limits,
    )
    axis.legend(loc="upper left")
    caption = (
        "The prediction is water-filling of the training images' spectrum at each trial's "
        "loss factor and bias. It is exact for Gaussian data, ideal networks and complete "
        "training."
    )
    return [finish(figure, "predicted", title, caption)]
