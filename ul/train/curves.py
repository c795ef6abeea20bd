"""Training curves: the scalars of metrics.jsonl plotted into one PNG."""

import json
import logging
from typing import Any

import numpy as np
from etils import epath

from ul.core import figures
from ul.core.errors import StorageError
from ul.core.files import read_bytes, write_error

log = logging.getLogger("ul")

# Scalars by panel, in the order of the panels. A panel without data is left out.
PANELS = {
    "loss, bits/pixel": ("loss_bpp", "decoder_bpp", "base_bpp", "eval_base_bpp"),
    "rate, bits/pixel": ("rate_bpp", "eval_rate_bpp", "terminal_bpp"),
    "latent std": ("latent_std",),
    "gradient norm": ("grad_norm",),
}
LOG_SCALE_PANELS = {"loss, bits/pixel", "gradient norm"}


def parse_metrics_line(line: str) -> dict[str, Any] | None:
    """Return the record in a line of metrics.jsonl: `step` and numbers; None if broken."""
    try:
        record = json.loads(line)
    except ValueError:
        return None  # A kill or a full disk left half a line.
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return None
    is_number = [isinstance(value, int | float) for value in record.values()]
    return record if all(is_number) else None


def read_metrics(workdir) -> dict[str, np.ndarray]:
    """Return each scalar of metrics.jsonl as an array [n, 2] of steps and values."""
    series: dict[str, list] = {}
    content = read_bytes(epath.Path(workdir) / "metrics.jsonl")
    for line in content.decode(errors="replace").splitlines():
        for name, value in (record := parse_metrics_line(line) or {}).items():
            if name != "step":
                series.setdefault(name, []).append((record["step"], value))
    return {name: np.asarray(points, np.float64) for name, points in series.items()}


def plot_metrics(workdir, planned_rate_bpp: float | None = None) -> None:
    """Write workdir/curves.png: loss, rate, latent std and gradient norm over steps.

    planned_rate_bpp: drawn as a horizontal line beside the measured rate.

    Raises:
      StorageError: the file cannot be written.
    """
    series = read_metrics(workdir)
    panels = {
        title: present
        for title, names in PANELS.items()
        if (present := [name for name in names if name in series])
    }
    if not panels:
        return
    plt = figures.pyplot()
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(4 * len(panels), 3),
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            marker = "o" if len(series[name]) == 1 else ""  # a line needs two points
            axis.plot(
                *series[name].T, label=name, linewidth=1.2, marker=marker, markersize=3
            )
        if planned_rate_bpp is not None and "rate_bpp" in names:
            axis.axhline(
                planned_rate_bpp, color="gray", linestyle="--", label="planned_rate_bpp"
            )
        axis.set(title=title, xlabel="step")
        if title in LOG_SCALE_PANELS:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    path = epath.Path(workdir) / "curves.png"
    try:
        with path.open("wb") as f:
            figure.savefig(f, dpi=120)
    except OSError as e:
        raise write_error(path, e) from e
    finally:
        plt.close(figure)


def draw(workdir: epath.PathLike, planned_rate_bpp: float | None) -> None:
    """Draw curves.png; a finished run does not fail because of a picture."""
    try:
        plot_metrics(workdir, planned_rate_bpp)
    except (OSError, StorageError) as e:
        log.warning("curves.png is not drawn: %s", e)
