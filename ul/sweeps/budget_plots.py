"""Draw the distance of samples against the rate at several budgets, and their optima."""

import numpy as np
from etils import epath

from ul.core import figures
from ul.core.errors import StorageError
from ul.planning import bitrate_law
from ul.sweeps.budget import SweepTrials

CURVE_POINTS = 120


def draw(path: str, sweep: SweepTrials) -> None:
    """Write a PNG of the fitted law, its trials and the path of the optimum.

    Raises:
      StorageError: the picture cannot be written.
    """
    plt = figures.pyplot()
    law = bitrate_law.fit(sweep.trials)
    flops = np.unique([t.flops for t in sweep.trials])
    rates = np.asarray([t.rate_bits for t in sweep.trials])
    grid = np.geomspace(rates.min() / 2, rates.max() * 2, CURVE_POINTS)
    figure, axis = plt.subplots(figsize=(7.5, 5.0), layout="constrained")
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, len(flops)))
    for budget, color in zip(flops, shades, strict=True):
        curve = law.samples(grid, budget)
        axis.plot(
            grid / sweep.num_pixels, curve, color=color, label=f"{budget:.2g} FLOPs"
        )
        own = [t for t in sweep.trials if t.flops == budget]
        measured = [t.rate_bits / sweep.num_pixels for t in own]
        axis.scatter(measured, [t.samples for t in own], color=[color], s=24)
    floor = law.reconstructions(grid)
    axis.plot(
        grid / sweep.num_pixels, floor, ":", color="gray", label="reconstructions"
    )
    budgets = np.geomspace(flops[0], 10 * flops[-1], 40)
    best = law.best_rate_bits(budgets)
    axis.plot(
        best / sweep.num_pixels, law.samples(best, budgets), "k--", label="optimum"
    )
    axis.set(xscale="log", yscale="log", xlabel="rate, bits/pixel")
    axis.set_ylabel(f"{sweep.metric} of samples")
    axis.legend(fontsize=8, title="training the base")
    try:
        with epath.Path(path).open("wb") as file:
            figure.savefig(file, format="png", dpi=130)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e
    finally:
        plt.close(figure)
