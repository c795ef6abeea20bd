"""Draw the loss curves of all trials as small multiples."""

import numpy as np
from etils import epath
from matplotlib import pyplot as plt
from matplotlib import ticker

from ul.sweeps.report import swept
from ul.sweeps.report.plots.style import COLORS, escape_mathtext, finish, slug
from ul.sweeps.report.rows import ReportFigure, SweepReport
from ul.train import curves

LOSSES = ("loss_bpp", "rate_bpp", "base_bpp", "eval_rate_bpp", "eval_base_bpp")
MAX_PANELS = 48
MAX_TITLE_LENGTH = 34

Scalars = dict[str, np.ndarray]  # name -> [n, 2] of step and value


def loss_curves(report: SweepReport) -> list[ReportFigure]:
    """Draw one figure for each stage, with one panel for each trial."""
    figures = []
    for stage_name in ("stage 1", "stage 2"):
        by_trial: dict[str, Scalars] = {}
        for row in report.rows:
            for stage in row.trial.stages:
                if stage.config is not None and swept.stage_name(stage) == stage_name:
                    workdir = epath.Path(report.sweep.path) / stage.workdir
                    losses = _read_losses(workdir)
                    by_trial |= {row.trial.name: losses} if losses else {}
        if by_trial:
            figures.append(_panels(stage_name, by_trial))
    return figures


def _read_losses(workdir) -> Scalars:
    """Return the losses of a run; none if its metrics are missing or damaged."""
    try:
        scalars = curves.read_metrics(workdir)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return {name: scalars[name] for name in LOSSES if name in scalars}


def _panels(stage_name: str, by_trial: dict[str, Scalars]) -> ReportFigure:
    panels = dict(list(by_trial.items())[:MAX_PANELS])
    num_columns = min(4, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure, axes = plt.subplots(
        num_rows,
        num_columns,
        figsize=(max(5.4, 3.1 * num_columns), 2.3 * num_rows + 0.4),
        sharey=True,
        squeeze=False,
    )
    for axis, (trial, losses) in zip(axes.flat, panels.items(), strict=False):
        for name, points in losses.items():
            color = COLORS[LOSSES.index(name)]
            marker = "o" if len(points) == 1 else ""  # a line needs two points
            axis.plot(*points.T, color=color, linewidth=1.0, label=name, marker=marker)
        is_long = len(trial) > MAX_TITLE_LENGTH
        title = f"…{trial[1 - MAX_TITLE_LENGTH :]}" if is_long else trial
        axis.set_title(escape_mathtext(title), fontsize=9)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].legend(loc="best", fontsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("bits/pixel", fontsize=9)
    caption = "Losses in bits/pixel; all panels share one vertical axis."
    if len(by_trial) > len(panels):
        caption += f" Only the first {len(panels)} of {len(by_trial)} trials are shown."
    name = f"losses-{slug(stage_name)}"
    return finish(figure, name, f"Losses of {stage_name}", caption)
