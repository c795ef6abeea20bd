"""The report's plots as PNGs: rate against quality, quality against cost, losses."""

from ul.sweeps.report.plots import cost, losses, rate, style
from ul.sweeps.report.rows import Figure, Report


def all_figures(report: Report) -> list[Figure]:
    """Those that the sweep has numbers for, in the page's order."""
    with style.look():
        return [
            *rate.qualities(report),
            *rate.predicted(report),
            *cost.against_flops(report),
            *losses.small_multiples(report),
        ]
