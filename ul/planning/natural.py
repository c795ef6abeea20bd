"""A spectrum of natural photographs at 512x512, for plans without the data.

`natural_512.json` was written by

    python -m ul.planning.natural ul/planning/natural_512.json

from six photographs that ship with scikit-image and scikit-learn, cropped and resized as
`ul import_images` does for ImageNet. Like most of ImageNet's, they are a little smaller than
512 pixels and are enlarged.
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ul.core.errors import ConfigError
from ul.data.sources.imported_images import center_crop_square
from ul.data.sources.photos import load_photo
from ul.planning import radial
from ul.planning.radial import RingSpectrum
from ul.planning.spectrum import Spectrum

SIDE = 512
FILE = Path(__file__).with_name("natural_512.json")
# By name, where each photograph ships, its author and its license.
PHOTOGRAPHS = {
    "astronaut": ("scikit-image", "NASA", "public domain"),
    "chelsea": ("scikit-image", "Stefan van der Walt", "CC0"),
    "coffee": ("scikit-image", "Rachel Michetti", "CC0"),
    "rocket": ("scikit-image", "SpaceX", "public domain"),
    "china": ("scikit-learn", "danielbuechele", "CC BY 2.0"),
    "flower": ("scikit-learn", "vultilion", "CC BY 2.0"),
}
# The file keeps this many digits; the sampling error of six photographs is far larger.
DIGITS = 5


def spectrum(shape: tuple[int, ...]) -> Spectrum:
    """Return the spectrum of natural color photographs of [H, W, 3].

    Raises:
      ConfigError: the images are larger than the photographs, or not in color.
    """
    height, width, channels = shape
    if channels != 3 or min(height, width) > SIDE:
        raise ConfigError(
            f"--spectrum=natural is known for color images of at most {SIDE} pixels a side; "
            f"data.image_shape is {shape}. Use another estimator."
        )
    return _shipped().at(height, width)


@functools.cache
def _shipped() -> RingSpectrum:
    record = json.loads(FILE.read_text(encoding="utf-8"))
    return RingSpectrum(
        np.asarray(record["rings"]),
        np.asarray(record["constant"]),
        (record["side"], record["side"]),
        record["description"],
    )


def photographs() -> np.ndarray:
    """Return the photographs, uint8 [6, 512, 512, 3]."""
    originals = [Image.fromarray(load_photo(name, 1)) for name in PHOTOGRAPHS]
    return np.stack([np.asarray(center_crop_square(i, SIDE)) for i in originals])


def make() -> str:
    """Return the content of the file, estimated from the photographs."""
    rings = radial.estimate(photographs())
    sources = [
        f"{name}: by {author}, {license}, shipped with {package}"
        for name, (package, author, license) in PHOTOGRAPHS.items()
    ]
    record = {
        "description": f"six natural photographs at {SIDE}x{SIDE}; {rings.description}",
        "sources": sources,
        "unit": "variance of a coefficient of the unitary Fourier transform; pixels are in "
        "-1..1",
        "side": SIDE,
        "constant": _round(rings.constant),
        "rings": [_round(row) for row in rings.rings],
    }
    return json.dumps(record, indent=1) + "\n"


def _round(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(make(), encoding="utf-8")
