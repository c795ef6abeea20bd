"""How all plots of a report look, and what they have in common."""

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib

from ul.sweeps.report.rows import Column, Row

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend comes first)

# Okabe and Ito's colours, told apart by all eyes; markers tell apart what repeats them.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1b1b")
MARKERS = "osD^vP"
GREY = "#8a8f98"
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
}
DPI = 130
SIZE = (5.4, 4.0)


def look():
    """The context in which every plot is drawn."""
    return plt.rc_context(STYLE)


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def plain(text: str) -> str:
    """A text from outside, of which matplotlib reads no dollar as mathematics."""
    return text.replace("$", r"\$")


def heading(column: Column) -> str:
    """Name, guidance and count of a column, for a plot's axis."""
    title = column.title
    if column.guidance not in (None, 1.0):
        title += f", guidance {column.guidance:g}"
    if column.examples is not None and "@" not in column.title:
        title += f" (n = {column.examples:,})"
    return title


def note(axis, text: str, at: tuple[float, float]) -> None:
    """A small text beside a point."""
    axis.annotate(
        plain(text),
        at,
        xytext=(5, 4),
        textcoords="offset points",
        fontsize=7.5,
        color="#4b5563",
    )


def png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    plt.close(figure)
    return out.getvalue()


def series(rows: Iterable[Row]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each line, in the order of the trials."""
    names = list(dict.fromkeys(row.series for row in rows))
    return {
        name: (
            COLOURS[i % len(COLOURS)],
            MARKERS[i // len(COLOURS) % len(MARKERS)],
        )
        for i, name in enumerate(names)
    }
