"""Curves of a run's metrics.jsonl as one PNG."""

import json

import matplotlib
import numpy as np
from etils import epath

from ul.core.errors import StorageError

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend comes first)

# One panel per group, in this order; a panel none of whose names exists is left out.
PANELS = {
    "loss, bits/pixel": ("loss_bpp", "decoder_bpp", "base_bpp", "eval_base_bpp"),
    "rate, bits/pixel": ("rate_bpp", "eval_rate_bpp", "terminal_bpp"),
    "latent std": ("latent_std",),
    "gradient norm": ("grad_norm",),
}
LOG_SCALE = {"loss, bits/pixel", "gradient norm"}


def read(workdir) -> dict[str, np.ndarray]:
    """Each scalar of metrics.jsonl as [n, 2] of step and value."""
    series: dict[str, list] = {}
    for line in (epath.Path(workdir) / "metrics.jsonl").read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut short by a kill or a full disk
        for name, value in record.items():
            if name != "step":
                series.setdefault(name, []).append((record["step"], value))
    return {name: np.asarray(points, np.float64) for name, points in series.items()}


def draw(workdir) -> None:
    """workdir/curves.png: loss, rate, latents and gradient over steps.

    Raises:
      StorageError: it cannot be written.
    """
    series = read(workdir)
    panels = {
        title: [n for n in names if n in series]
        for title, names in PANELS.items()
        if any(n in series for n in names)
    }
    if not panels:
        return
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(4 * len(panels), 3),
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            axis.plot(*series[name].T, label=name, linewidth=1.2)
        axis.set(title=title, xlabel="step")
        if title in LOG_SCALE:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    path = epath.Path(workdir) / "curves.png"
    try:
        with path.open("wb") as f:
            figure.savefig(f, dpi=120)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e
    finally:
        plt.close(figure)
