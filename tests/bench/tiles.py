"""The seams of tiled decoding on a photograph.

    python -m tests.bench.tiles --workdir runs/p16 --out tiles.png

A seam would show as larger jumps between adjacent pixels at the edges of tiles. The picture
has the photograph and its reconstructions with tiles that share 0, 1 and 2 cells.
"""

import argparse
import sys

import numpy as np
from PIL import Image
from skimage import data

import ul
from ul.core import markdown
from ul.inference import tiling

OVERLAPS = (0, 1, 2)


def photograph() -> np.ndarray:
    """A part of a held-out photograph, uint8 [1, 96, 128, 3]."""
    whole = Image.fromarray(data.coffee()).crop((40, 10, 552, 394))
    return np.asarray(whole.resize((128, 96), Image.Resampling.BOX))[None]


def jumps(image: np.ndarray, tiles: list[tiling.Tile], cell: int) -> list[float]:
    """Return mean jumps at edges of tiles, at other edges of cells, and elsewhere."""
    jump = np.abs(np.diff(image[0].astype(np.float64), axis=1)).mean((0, 2))
    first = {t.columns.start for t in tiles}
    last = {t.columns.start + t.columns.size for t in tiles}
    edges = sorted((first | last) - {0, image.shape[2] // cell})
    at_tiles = np.isin(np.arange(len(jump)) + 1, np.multiply(edges, cell))
    at_cells = (np.arange(len(jump)) + 1) % cell == 0
    masks = at_tiles, at_cells & ~at_tiles, ~at_cells
    return [float(jump[mask].mean()) for mask in masks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--out", default="tiles.png")
    options = parser.parse_args()
    autoencoder, image = ul.load_autoencoder(options.workdir), photograph()
    z = tiling.encode(autoencoder, image)
    cell = image.shape[2] // z.shape[2]
    rows = [["overlap", "tiles", "PSNR, dB", "tile edges", "cell edges", "elsewhere"]]
    pictures = [image[0]]
    for overlap in OVERLAPS:
        decoded = tiling.decode(autoencoder, z, overlap=overlap)
        pictures.append(decoded[0])
        tile = autoencoder.latent_shape[:2]
        tiles = tiling.plan_tiles(z.shape[1:3], tile, overlap)
        squared = np.mean(np.square(decoded.astype(np.float64) - image))
        numbers = [10 * np.log10(255**2 / squared), *jumps(decoded, tiles, cell)]
        cells = [f"{value:.2f}" for value in numbers]
        rows.append([str(overlap), str(len(tiles)), *cells])
    sys.stdout.write(markdown.table(rows) + "\n")
    Image.fromarray(np.concatenate(pictures, axis=1)).save(options.out)


if __name__ == "__main__":
    main()
