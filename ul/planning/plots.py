"""Draw a bitrate plan: rate against distortion, and the spectrum with its water level."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from ul.core import figures
from ul.core.errors import StorageError
from ul.planning.spectrum import Spectrum

FactorBias = tuple[float, float]

MEAN_COLOR, SAMPLE_COLOR, CONFIG_COLOR = "#2166ac", "#1b1b1b", "#d6301d"
CODED_COLOR = "#92c5de"
CURVE_POINTS = 120
# A pair that spends fewer bits/pixel has no place on a logarithmic axis.
MIN_BPP = 1e-6
# A longer spectrum is thinned before it is drawn.
MAX_SPECTRUM_POINTS = 4000


def draw_plan(
    path: str,
    spectrum: Spectrum,
    precisions: Mapping[FactorBias, float],
    config_pair: FactorBias,
    *,
    num_pixels: int,
    title: str,
) -> None:
    """Draw the pairs of loss factor and bias on the rate-distortion curve as a PNG.

    `precisions` is the posterior precision at each (factor, bias); the config's own pair
    is highlighted.

    Raises:
      StorageError: the picture cannot be written.
    """
    plt = figures.pyplot()
    figure = plt.figure(figsize=(12.5, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1), height_ratios=(2.1, 1))
    curve_axis = figure.add_subplot(grid[0, 0])
    bias_axis = figure.add_subplot(grid[1, 0], sharex=curve_axis)
    rates = {pair: spectrum.bits(p) / num_pixels for pair, p in precisions.items()}
    rates = {pair: bpp for pair, bpp in rates.items() if bpp > MIN_BPP}
    factors = sorted({factor for factor, _ in precisions})
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.75, len(factors)))
    colors = dict(zip(factors, shades, strict=True))
    _draw_rate_distortion(
        curve_axis, spectrum, precisions, rates, config_pair, colors, num_pixels
    )
    _draw_biases(bias_axis, rates, config_pair, colors)
    if config_pair in rates:
        for axis in (curve_axis, bias_axis):
            axis.axvline(
                rates[config_pair],
                color=CONFIG_COLOR,
                linestyle="--",
                linewidth=0.9,
                zorder=0,
            )
    spectrum_axis = figure.add_subplot(grid[:, 1])
    _draw_spectrum(spectrum_axis, spectrum, precisions[config_pair], config_pair)
    figure.suptitle(
        f"{title}: prediction by water-filling of the training data", fontsize=13
    )
    try:
        epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
        with epath.Path(path).open("wb") as f:
            figure.savefig(f, format="png", dpi=120)
    except OSError as e:
        raise StorageError(
            f"The picture could not be written to {path}: {e}. Pass another --out."
        ) from e
    finally:
        plt.close(figure)


def _draw_rate_distortion(
    axis, spectrum, precisions, rates, config_pair, colors, num_pixels
) -> None:
    """Draw both PSNR curves over bits/pixel, with every pair of the grid on each."""
    drawn = [precisions[pair] for pair in rates] or [precisions[config_pair]]
    lowest = max(min(drawn) / 2.0, 1.001 / spectrum.variances[0])
    highest = max(max(drawn) * 2.0, lowest * 2.0)
    curve = np.geomspace(lowest, highest, CURVE_POINTS)
    curve_rates = [spectrum.bits(p) / num_pixels for p in curve]
    config_label = f"this config: {_pair_label(config_pair)}"
    for psnr_db, color, label, star_label in (
        (spectrum.mean_psnr_db, MEAN_COLOR, "posterior mean (D)", None),
        (spectrum.sample_psnr_db, SAMPLE_COLOR, "posterior sample (2 D)", config_label),
    ):
        axis.plot(
            curve_rates,
            [psnr_db(p) for p in curve],
            color=color,
            linewidth=1.6,
            label=label,
            zorder=1,
        )
        for pair, bpp in rates.items():
            axis.scatter(
                bpp,
                psnr_db(precisions[pair]),
                26,
                [colors[pair[0]]],
                edgecolors="white",
                zorder=2,
            )
        if config_pair in rates:
            axis.scatter(
                rates[config_pair],
                psnr_db(precisions[config_pair]),
                170,
                CONFIG_COLOR,
                marker="*",
                edgecolors="white",
                zorder=3,
                label=star_label,
            )
    axis.set(xscale="log", ylabel="PSNR, dB", title="Rate and distortion")
    if rates:
        axis.set_xlim(min(rates.values()) / 1.5, max(rates.values()) * 1.5)
    axis.tick_params(labelbottom=False)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize=9)


def _pair_label(pair: FactorBias) -> str:
    return f"$c_{{lf}}$ = {pair[0]:g}, b = {pair[1]:g}"


def _draw_biases(axis, rates, config_pair, colors) -> None:
    """Draw one row per loss factor, with each bias at the rate that it costs."""
    heights = {factor: i for i, factor in enumerate(colors)}
    for factor, y in heights.items():
        axis.axhline(y, color=colors[factor], linewidth=1.0, alpha=0.45, zorder=0)
    for (factor, bias), bpp in rates.items():
        is_config = (factor, bias) == config_pair
        axis.text(
            bpp,
            heights[factor],
            f"{bias:g}",
            ha="center",
            va="center",
            fontsize=9,
            color="white",
            fontweight="bold" if is_config else "normal",
            bbox=dict(
                boxstyle="round,pad=0.3,rounding_size=0.9",
                facecolor=CONFIG_COLOR if is_config else colors[factor],
                edgecolor="white",
            ),
            zorder=3 if is_config else 2,
            clip_on=True,
        )
    axis.set_yticks(list(heights.values()), [f"{factor:g}" for factor in heights])
    axis.set(
        xlabel="bits/pixel",
        ylabel="loss factor $c_{lf}$",
        ylim=(-0.6, len(heights) - 0.4),
        title="Bias b for each loss factor",
    )
    axis.grid(alpha=0.3, axis="x", which="both")
    axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")


def _draw_spectrum(
    axis, spectrum: Spectrum, precision: float, config_pair: FactorBias
) -> None:
    """Draw the sorted variances and the water level of the config's own pair."""
    variances = np.maximum(spectrum.variances, 1e-12)
    index = np.arange(1, len(variances) + 1)
    if len(variances) > MAX_SPECTRUM_POINTS:
        thinned = np.geomspace(1, len(variances), MAX_SPECTRUM_POINTS)
        index = np.unique(thinned.astype(int))
    variances, level = variances[index - 1], 1.0 / precision
    axis.plot(index, variances, color=SAMPLE_COLOR, linewidth=1.6, label="variance")
    codable = index <= (spectrum.max_coded or len(spectrum.variances))
    axis.fill_between(
        index,
        level,
        variances,
        where=(variances > level) & codable,
        color=CODED_COLOR,
        alpha=0.7,
        label="coded: bits = ½ log₂(variance / level)",
    )
    axis.axhline(
        level,
        color=CONFIG_COLOR,
        linestyle="--",
        label=f"water level {level:.3g}: {_pair_label(config_pair)}",
    )
    if spectrum.max_coded is not None and spectrum.max_coded < len(spectrum.variances):
        axis.axvline(
            spectrum.max_coded,
            color="0.4",
            linestyle=":",
            label=f"size of the latent: {spectrum.max_coded}",
        )
    block = "an image"
    if spectrum.blocks_per_image != 1:
        block = f"a patch ({spectrum.blocks_per_image:g} per image)"
    axis.set(
        xscale="log",
        yscale="log",
        xlabel=f"direction of {block}, by variance",
        ylabel="variance, pixels in -1..1",
        title="Spectrum of the training data",
    )
    axis.set_ylim(max(variances[-1], variances[0] * 1e-7) / 2.0, variances[0] * 3.0)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
