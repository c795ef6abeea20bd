"""The planner's picture: rate against distortion, and the spectrum under the water."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from etils import epath

from ul.core.errors import StorageError
from ul.planning.spectrum import Spectrum

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend comes first)

Point = tuple[float, float]

MEAN, SAMPLED, OWN = "#2166ac", "#1b1b1b", "#d6301d"
CODED = "#92c5de"
CURVE_POINTS = 120
PEAK = 2.0
# A spectrum of more is thinned for drawing.
MOST_DRAWN = 4000


def plan(
    path: str,
    spectrum: Spectrum,
    at: Mapping[Point, float],
    own: Point,
    *,
    pixels: int,
    title: str,
) -> None:
    """The precision of each (factor, bias) on the rate-distortion curve; `own` stands out.

    Raises:
      StorageError: it cannot be written.
    """
    figure = plt.figure(figsize=(12.5, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1), height_ratios=(2.1, 1))
    curve = figure.add_subplot(grid[0, 0])
    ladder = figure.add_subplot(grid[1, 0], sharex=curve)
    rates = {k: spectrum.bits(p) / pixels for k, p in at.items()}
    shown = {k: r for k, r in rates.items() if r > 1e-6}
    factors = sorted({factor for factor, _ in at})
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.75, len(factors)))
    colours = dict(zip(factors, shades, strict=True))
    _curve(curve, spectrum, at, shown, own, colours, pixels=pixels)
    _ladder(ladder, shown, own, colours)
    for axis in (curve, ladder) if own in shown else ():
        axis.axvline(shown[own], color=OWN, linestyle="--", linewidth=0.9, zorder=0)
    _water(figure.add_subplot(grid[:, 1]), spectrum, at[own], own)
    figure.suptitle(
        f"{title}: what water-filling of the training data predicts", fontsize=13
    )
    try:
        epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
        with epath.Path(path).open("wb") as f:
            figure.savefig(f, format="png", dpi=120)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e
    finally:
        plt.close(figure)


def _psnr_db(spectrum: Spectrum, precision: float, errors: int) -> float:
    return 10.0 * np.log10(PEAK**2 / (errors * spectrum.mse(precision)))


def _curve(axis, spectrum, at, shown, own, colours, *, pixels) -> None:
    """Both PSNR over bits/pixel; every grid point lies on each."""
    known = [at[k] for k in shown] or [at[own]]
    low = max(min(known) / 2.0, 1.001 / spectrum.variances[0])
    precisions = np.geomspace(low, max(max(known) * 2.0, low * 2.0), CURVE_POINTS)
    rates = [spectrum.bits(p) / pixels for p in precisions]
    for errors, colour, label in (
        (1, MEAN, "posterior mean (D)"),
        (2, SAMPLED, "sampled reconstructions (2 D)"),
    ):
        psnr = [_psnr_db(spectrum, p, errors) for p in precisions]
        axis.plot(rates, psnr, color=colour, linewidth=1.6, label=label, zorder=1)
        for k, rate in shown.items():
            y = _psnr_db(spectrum, at[k], errors)
            axis.scatter(rate, y, 26, [colours[k[0]]], edgecolors="white", zorder=2)
        if own in shown:
            axis.scatter(
                shown[own],
                _psnr_db(spectrum, at[own], errors),
                170,
                OWN,
                marker="*",
                edgecolors="white",
                zorder=3,
                label=f"this config: {_named(own)}" if errors == 2 else None,
            )
    axis.set(xscale="log", ylabel="PSNR, dB", title="Rate and distortion")
    if shown:
        axis.set_xlim(min(shown.values()) / 1.5, max(shown.values()) * 1.5)
    axis.tick_params(labelbottom=False)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize=9)


def _named(own: Point) -> str:
    return f"$c_{{lf}}$ = {own[0]:g}, b = {own[1]:g}"


def _ladder(axis, shown, own, colours) -> None:
    """For each factor a row of the biases, at the bits they cost."""
    rows = {factor: i for i, factor in enumerate(colours)}
    for factor, y in rows.items():
        axis.axhline(y, color=colours[factor], linewidth=1.0, alpha=0.45, zorder=0)
    for (factor, bias), rate in shown.items():
        mine = (factor, bias) == own
        axis.text(
            rate,
            rows[factor],
            f"{bias:g}",
            ha="center",
            va="center",
            fontsize=9,
            color="white",
            fontweight="bold" if mine else "normal",
            bbox=dict(
                boxstyle="round,pad=0.3,rounding_size=0.9",
                facecolor=OWN if mine else colours[factor],
                edgecolor="white",
            ),
            zorder=3 if mine else 2,
            clip_on=True,
        )
    axis.set_yticks(list(rows.values()), [f"{factor:g}" for factor in rows])
    axis.set(
        xlabel="bits/pixel",
        ylabel="loss factor $c_{lf}$",
        ylim=(-0.6, len(rows) - 0.4),
        title="Bias b for each loss factor",
    )
    axis.grid(alpha=0.3, axis="x", which="both")
    axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))


def _water(axis, spectrum: Spectrum, precision: float, own: Point) -> None:
    """Sorted variances with the water level of the config's point."""
    values = np.maximum(spectrum.variances, 1e-12)
    index = np.arange(1, len(values) + 1)
    if len(values) > MOST_DRAWN:
        index = np.unique(np.geomspace(1, len(values), MOST_DRAWN).astype(int))
    values, level = values[index - 1], 1.0 / precision
    axis.plot(index, values, color=SAMPLED, linewidth=1.6, label="variance")
    codable = index <= (spectrum.limit or len(spectrum.variances))
    axis.fill_between(
        index,
        level,
        values,
        where=(values > level) & codable,
        color=CODED,
        alpha=0.7,
        label="coded: bits = ½ log₂(variance / level)",
    )
    axis.axhline(
        level,
        color=OWN,
        linestyle="--",
        label=f"water level {level:.3g}: {_named(own)}",
    )
    if spectrum.limit is not None and spectrum.limit < len(spectrum.variances):
        axis.axvline(
            spectrum.limit,
            color="0.4",
            linestyle=":",
            label=f"the latent's {spectrum.limit}",
        )
    unit = (
        "an image" if spectrum.units == 1 else f"a patch ({spectrum.units:g} an image)"
    )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel=f"direction of {unit}, by variance",
        ylabel="variance, pixels in -1..1",
        title="Spectrum of the training data",
    )
    axis.set_ylim(max(values[-1], values[0] * 1e-7) / 2.0, values[0] * 3.0)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
