"""Small multiples of the trials' losses."""

import numpy as np
from etils import epath
from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import swept
from ul.sweeps.report.plots.style import COLOURS, plain, png, slug
from ul.sweeps.report.rows import Figure, Report
from ul.train import curves

LOSSES = ("loss_bpp", "rate_bpp", "base_bpp", "eval_rate_bpp", "eval_base_bpp")
MOST_SMALL = 48


def small_multiples(report: Report) -> list[Figure]:
    """Small multiples of the losses, a figure for each stage."""
    figures = []
    for which in ("stage 1", "stage 2"):
        series: dict[str, dict[str, np.ndarray]] = {}
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
        found = curves.read_metrics(workdir)
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
        axis.set_title(plain(name if len(name) <= 34 else f"…{name[-33:]}"), fontsize=9)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
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
        png(figure),
    )
