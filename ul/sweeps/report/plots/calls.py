"""Draw the Frechet distance of reconstructions against the decoder's network calls."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.planning import recipe_cost
from ul.sweeps.report.plots.style import (
    FIGURE_SIZE,
    escape_mathtext,
    finish,
    full_title,
    series_styles,
    slug,
)
from ul.sweeps.report.rows import (
    EvaluationRecord,
    MetricColumn,
    ReportFigure,
    SweepReport,
    TrialRow,
)

# PSNR is not among them, because it rises with the error of a sampler.
METRICS = ("rfid", "rfvd", "reconstruction_frechet")


class CallPoint(NamedTuple):
    """The decoder calls of one reconstruction, and the distance of the reconstructions."""

    row: TrialRow
    calls: int
    distance: float


def quality_against_calls(report: SweepReport) -> list[ReportFigure]:
    """Draw the distances of a sweep whose decoders differ in their number of calls."""
    figures = []
    for column in report.columns:
        if column.metric in METRICS:
            points = _points(report, column)
            if len({p.calls for p in points}) > 1:
                figures.append(_figure(report, column, points))
    return figures


def _points(report: SweepReport, column: MetricColumn) -> list[CallPoint]:
    points = []
    for row in report.rows:
        if column in row.values:
            value = row.values[column]
            calls = _decoder_calls(row, value.record)
            if calls is not None:
                points.append(CallPoint(row, calls, value.value))
    return sorted(points, key=lambda p: p.calls)


def _decoder_calls(row: TrialRow, record: EvaluationRecord) -> int | None:
    """Return the calls of the run that was evaluated, or None if it cannot be built."""
    stages = [s.stage for s in row.trial.stages if record in s.records]
    return recipe_cost.decoder_calls(stages[0]) if stages and stages[0] else None


def _figure(
    report: SweepReport, column: MetricColumn, points: Sequence[CallPoint]
) -> ReportFigure:
    figure, axis = plt.subplots(figsize=FIGURE_SIZE)
    for name, (color, marker) in series_styles(report.rows).items():
        line = [p for p in points if p.row.series == name]
        if line:
            axis.plot(
                [p.calls for p in line],
                [p.distance for p in line],
                marker=marker,
                color=color,
                label=escape_mathtext(name) or "this sweep",
            )
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%d"))
    axis.set(
        xlabel="decoder calls per image",
        ylabel=escape_mathtext(column.title),
        title=escape_mathtext(full_title(column)),
    )
    axis.legend(loc="best")
    return finish(
        figure,
        name=f"calls-{slug(column.key)}",
        title=f"{full_title(column)} against decoder calls",
        caption="Each call runs the decoder's network once. PSNR is not drawn, because it "
        "rises with the error of a sampler.",
    )
