"""Style of all plots of a report, and the helpers that they share."""

import io
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import matplotlib

from ul.sweeps.report.rows import MetricColumn, ReportFigure, TrialRow

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend comes first)

# Okabe and Ito's colors, which color-blind people can tell apart; markers distinguish the
# lines that repeat a color.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1b1b")
MARKERS = "osD^vP"
GRAY = "#8a8f98"
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.edgecolor": "#9aa0a8",
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",  # text stays text, which can be edited
}
DPI = 130
FIGURE_SIZE = (5.4, 4.0)


def plot_style() -> AbstractContextManager[None]:
    """Return the context in which all plots are drawn."""
    return plt.rc_context(STYLE)


def slug(text: str) -> str:
    """Return the text as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def escape_mathtext(text: str) -> str:
    """Escape the dollar signs in text from files, which matplotlib reads as mathematics."""
    return text.replace("$", r"\$")


def full_title(column: MetricColumn) -> str:
    """Return the title of a column with its guidance and number of examples."""
    title = column.title
    if column.guidance not in (None, 1.0):
        title += f", guidance {column.guidance:g}"
    if column.num_examples is not None and "@" not in column.title:
        title += f" (n = {column.num_examples:,})"
    return title


def annotate(axis, text: str, point: tuple[float, float]) -> None:
    """Write a small text beside a point."""
    axis.annotate(
        escape_mathtext(text),
        point,
        xytext=(5, 4),
        textcoords="offset points",
        fontsize=7.5,
        color="#4b5563",
    )


def finish(figure, name: str, title: str, caption: str) -> ReportFigure:
    """Return the figure as a PNG and as vector graphics, and close it."""
    files = {kind: io.BytesIO() for kind in ("png", "svg")}
    for kind, out in files.items():
        figure.savefig(out, format=kind, dpi=DPI)
    plt.close(figure)
    png, svg = (out.getvalue() for out in files.values())
    return ReportFigure(name, title, caption, png, svg)


def series_styles(rows: Iterable[TrialRow]) -> dict[str, tuple[str, str]]:
    """Return color and marker of each line, in the order of the trials."""
    names = list(dict.fromkeys(row.series for row in rows))
    return {
        name: (
            COLORS[i % len(COLORS)],
            MARKERS[i // len(COLORS) % len(MARKERS)],
        )
        for i, name in enumerate(names)
    }
