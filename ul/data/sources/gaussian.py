"""Gaussian images of a known spectrum, for which the optimum of stage 1 is known."""

import numpy as np
from scipy import fft

from ul.core.errors import ConfigError
from ul.data.sources.base import FunctionSource, Shape


def coefficient_variances(shape: Shape, exponent: float, std: float) -> np.ndarray:
    """Return the variances [H, W, C] of the image's cosine coefficients, pixels in -1..1.

    The coefficients are those of the orthonormal cosine transform of each channel. The
    variance falls as (1 + |frequency|^2)^(-exponent / 2), in photographs with an exponent
    of about 2; its mean is std^2.
    """
    height, width, channels = shape
    squared_frequency = np.arange(height)[:, None] ** 2 + np.arange(width)[None, :] ** 2
    variance = (1.0 + squared_frequency) ** (-exponent / 2.0)
    variance *= std**2 / variance.mean()
    return np.repeat(variance[..., None], channels, axis=2)


def make_source(
    split: str,
    shape: Shape,
    *,
    exponent: float = 3.0,
    std: float = 0.25,
    num_examples: int = 50_000,
) -> FunctionSource:
    """Return Gaussian images with the spectrum of `coefficient_variances`, as 256 levels.

    The split and the index seed each image. A std of 0.25 clips about one pixel in 5,000;
    values above 0.3 are refused.
    """
    if not (0.0 < std <= 0.3 and exponent >= 0.0 and num_examples >= 1):
        raise ConfigError(
            "data.source.std must be in (0, 0.3], data.source.exponent at least 0 and "
            f"data.source.num_examples at least 1; got {std}, {exponent} and {num_examples}."
        )
    scale = np.sqrt(coefficient_variances(shape, exponent, std))
    split_seed = 0 if split == "train" else 1

    def get_example(i):
        rng = np.random.default_rng([split_seed, i])
        coefficients = scale * rng.standard_normal(shape)
        x = fft.idctn(coefficients, axes=(0, 1), norm="ortho")
        levels = np.clip(np.round((x + 1.0) * 127.5), 0, 255)
        return {"image": levels.astype(np.uint8), "label": 0}

    return FunctionSource(num_examples, get_example, num_classes=1)
