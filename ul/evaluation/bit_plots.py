"""Figures of a split rate: a curve, bars, and maps beside their images."""

import dataclasses
import io

import numpy as np

from ul.core import figures
from ul.metrics import rate_split, reconstruction


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    figures.pyplot().close(figure)
    return buffer.getvalue()


def curves(shares: rate_split.RateSplit) -> bytes:
    """Return a PNG of the bits by noise level and by channel, with standard errors."""
    figure, (left, right) = figures.pyplot().subplots(
        1, 2, figsize=(10, 3.2), layout="constrained"
    )
    left.plot(shares.logsnr, shares.bpp_by_logsnr)
    left.fill_between(
        shares.logsnr,
        shares.bpp_by_logsnr - shares.bpp_by_logsnr_sem,
        shares.bpp_by_logsnr + shares.bpp_by_logsnr_sem,
        alpha=0.3,
    )
    left.set(
        xlabel="log-SNR of the latent",
        ylabel="bits/pixel per unit of log-SNR",
        title=f"bits by noise level (without terminal KL: {shares.terminal_bpp:.1e})",
    )
    left.grid(alpha=0.3)
    channels = np.arange(len(shares.bpp_by_channel))
    right.bar(channels, shares.bpp_by_channel, yerr=shares.bpp_by_channel_sem)
    right.set(
        xlabel="latent channel",
        ylabel="bits/pixel",
        title=f"bits by channel, {shares.bpp_by_channel.sum():.3f} in all",
    )
    if len(channels) <= 16:
        right.set_xticks(channels)
    right.grid(alpha=0.3, axis="y")
    return _png(figure)


def maps(
    image: np.ndarray, place: np.ndarray, columns: int = 4, inches: float = 1.3
) -> bytes:
    """Return a PNG of uint8 images [N, H, W, C], each beside its map [N, h, w].

    The maps are in bits/pixel. `inches`: the width of one image.
    """
    rows = -(-len(image) // columns)
    aspect = image.shape[1] / image.shape[2]
    figure, axes = figures.pyplot().subplots(
        rows,
        2 * columns,
        figsize=(2 * inches * columns + 0.6, inches * rows * aspect + 0.2),
        squeeze=False,
        layout="constrained",
    )
    largest = float(place.max())
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (picture, heat) in enumerate(zip(image, place, strict=True)):
        left, right = axes[i // columns, 2 * (i % columns) :][:2]
        left.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255)
        heat_map = right.imshow(
            rate_split.upsample_to_image(heat[None], picture.shape[:2])[0],
            cmap="inferno",
            vmin=0.0,
            vmax=largest,
        )
    bar = figure.colorbar(heat_map, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("bits/pixel")
    return _png(figure)


@dataclasses.dataclass(frozen=True)
class BitColumn:
    """The bits of a picture and perhaps its reconstruction, under one run.

    bits: [h, w] in bits/pixel. reconstruction: uint8 [H, W, C], or None.
    """

    bits: np.ndarray
    reconstruction: np.ndarray | None = None

    def title(self, picture: np.ndarray) -> str:
        """Return the rate and, with a reconstruction, its PSNR."""
        rate = f"{self.bits.mean():.2g} bits/pixel"
        if self.reconstruction is None:
            return rate
        pair = picture[None], self.reconstruction[None]
        return f"{rate}, {reconstruction.psnr_db(*pair)[0]:.1f} dB"


def compare(picture: np.ndarray, runs: list[BitColumn], inches: float = 3.6) -> bytes:
    """Return a PNG of a picture, its reconstructions, and its bits under several runs.

    The reconstructions, if there are any, are above the maps. `inches`: the width of one
    picture.
    """
    pictures = [run.reconstruction for run in runs if run.reconstruction is not None]
    rows, columns = 2 if pictures else 1, len(runs) + 1
    aspect = picture.shape[0] / picture.shape[1]
    figure, axes = figures.pyplot().subplots(
        rows,
        columns,
        figsize=(inches * columns + 0.6, inches * rows * aspect + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    largest = max(float(run.bits.max()) for run in runs)
    for axis, image in zip(axes[0], [picture, *pictures], strict=False):
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_title("original")
    for i, run in enumerate(runs, start=1):
        axes[0, i].set_title(run.title(picture))
        bits = rate_split.upsample_to_image(run.bits[None], picture.shape[:2])[0]
        heat_map = axes[-1, i].imshow(bits, cmap="inferno", vmin=0.0, vmax=largest)
    bar = figure.colorbar(heat_map, ax=axes[-1], shrink=0.8, pad=0.01)
    bar.set_label("bits/pixel")
    return _png(figure)
