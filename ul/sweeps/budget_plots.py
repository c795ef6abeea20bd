"""Draw the law of the best bitrate: its curves of equal budget, and what it predicts."""

import numpy as np
from etils import epath

from ul.core import figures
from ul.core.errors import StorageError
from ul.planning import bitrate_law
from ul.planning.bitrate_law import BitrateLaw
from ul.sweeps.budget import SweepTrials

CURVE_POINTS, CURVES = 60, 5


def draw(path: str, sweep: SweepTrials) -> None:
    """Write a PNG of the fitted law, the path of its optimum, and its errors.

    Raises:
      StorageError: the picture cannot be written.
    """
    plt = figures.pyplot()
    law = bitrate_law.fit(sweep.trials)
    figure, axes = plt.subplots(1, 2, figsize=(13.0, 4.8), layout="constrained")
    _draw_curves(axes[0], plt.get_cmap("viridis"), sweep, law)
    _draw_errors(axes[1], plt.get_cmap("plasma"), sweep)
    try:
        with epath.Path(path).open("wb") as file:
            figure.savefig(file, format="png", dpi=130)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e
    finally:
        plt.close(figure)


def _draw_curves(axis, shades, sweep: SweepTrials, law: BitrateLaw) -> None:
    """Draw the distance of samples against the rate, with the best size at each budget."""
    flops = [t.flops for t in sweep.trials]
    grid = np.geomspace(*law.rates, CURVE_POINTS)
    budgets = np.geomspace(min(flops), max(flops), CURVES)
    for shade, budget in zip(np.linspace(0.0, 0.85, CURVES), budgets, strict=True):
        curve = [law.best(budget, rate).samples for rate in grid]
        label = f"{budget:.1e} FLOPs"
        axis.plot(grid / sweep.num_pixels, curve, color=shades(shade), label=label)
    floor = law.reconstructions(grid)
    axis.plot(grid / sweep.num_pixels, floor, ":", color="gray", label="decoded images")
    path = [law.best(b) for b in np.geomspace(min(flops), max(flops), CURVE_POINTS)]
    rates = np.asarray([best.rate_bits for best in path])
    axis.plot(
        rates / sweep.num_pixels,
        [best.samples for best in path],
        "k--",
        label="optimum",
    )
    axis.set(xscale="log", yscale="log", xlabel="rate, bits/pixel")
    axis.set_ylabel(f"{sweep.metric} of samples")
    # Beside the axes, because curves may lie in every corner.
    axis.legend(
        fontsize=8, title="budget at the best size", loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip


def _draw_errors(axis, shades, sweep: SweepTrials) -> None:
    """Draw measured distances against those that the law predicts without the trial."""
    predicted = bitrate_law.leave_one_out(sweep.trials)
    measured = np.asarray([t.samples for t in sweep.trials])
    lengths = np.asarray([t.num_images for t in sweep.trials])
    distinct = np.unique(lengths)
    for shade, length in zip(
        np.linspace(0.0, 0.8, len(distinct)), distinct, strict=True
    ):
        own = lengths == length
        axis.scatter(
            predicted[own], measured[own], s=24, color=[shades(shade)],
            label=f"{length:.3g} images",
        )  # fmt: skip
    ends = [min(*predicted, *measured), max(*predicted, *measured)]
    axis.plot(ends, ends, "-", color="gray", linewidth=1)
    axis.set(xscale="log", yscale="log", ylabel=f"{sweep.metric} of samples, measured")
    axis.set_xlabel("predicted without the trial")
    axis.legend(fontsize=8, title="training of the base")
