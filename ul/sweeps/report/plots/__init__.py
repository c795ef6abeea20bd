"""Draw the plots of a report: rate, quality, training cost and losses."""

from ul.sweeps.report.plots import calls, cost, losses, rate, style
from ul.sweeps.report.rows import ReportFigure, SweepReport


def all_figures(report: SweepReport) -> list[ReportFigure]:
    """Draw the plots for which the sweep has numbers, in the order of the page."""
    with style.plot_style():
        return [
            *rate.quality_against_rate(report),
            *rate.measured_against_predicted(report),
            *cost.quality_against_flops(report),
            *calls.quality_against_calls(report),
            *losses.loss_curves(report),
        ]
