"""The scale of the latents that a stage 2 is trained on, measured once when it starts.

The noise of the latents is fixed, so the encoder chooses their scale.
"""

import logging
import math
from typing import Any

import jax
import numpy as np

from ul.core import batching
from ul.core.errors import DataError
from ul.data import datasets as examples_of
from ul.data import pipeline
from ul.data.datasets import Datasets
from ul.data.latent_cache import LatentCache
from ul.inference.models import Autoencoder

log = logging.getLogger("ul")

MAX_EXAMPLES, MIN_EXAMPLES = 1024, 64
# Fewer large images are read, because each has many latent positions.
MAX_VALUES = 2**27
# Rounding makes the result independent of the cache's dtype and of the mesh.
DIGITS = 3


def measure(
    datasets: Datasets,
    autoencoder: Autoencoder,
    cache: LatentCache | None,
    batch_size: int,
) -> dict[str, Any]:
    """Return the variance of the training latents, for `provenance.latents`.

    variance: mean over elements of the variance around the element's own mean.
    std_by_channel: standard deviation of each channel. num_examples: examples measured. If
    a cache is given, its latents are read instead of encoding images.

    Raises:
      DataError: all latents are equal.
    """
    examples = datasets.unaugmented_train
    fitting = MAX_VALUES // math.prod(autoencoder.image_shape)
    limit = min(MAX_EXAMPLES, max(MIN_EXAMPLES, fitting))
    indices = examples_of.fixed_subset(len(examples), limit)
    if cache is not None:
        z = np.stack([cache.latents[int(i)]["z_clean"] for i in indices])
    else:
        key = jax.random.key(0)
        batch = pipeline.make_batch(examples, indices, indices, len(indices))
        z = batching.map_rows(
            lambda image, row: autoencoder.codec.latents(
                autoencoder.params, image, row, key
            ),
            {"image": batch["image"], "row": np.asarray(indices, np.int32)},
            batch_size=batch_size,
            mesh=autoencoder.mesh,
        )
    variances = z.astype(np.float64).var(axis=0)
    if not variances.mean() > 0.0:
        raise DataError(
            f"The latents of {len(indices)} training examples must differ; they are all "
            "equal. Train stage 1 again, with a longer loss.ramp_steps or a larger "
            "loss.weighting.bias, or check that the data hold more than one example."
        )
    by_channel = variances.mean(axis=tuple(range(variances.ndim - 1)))
    return {
        "variance": _round(variances.mean()),
        "std_by_channel": [_round(value) for value in np.sqrt(by_channel)],
        "num_examples": len(indices),
    }


def report(measured: dict[str, Any]) -> None:
    """Log the measured scale."""
    log.info(
        "latents: standard deviation %.3g around their mean, by channel %s (%d examples)",
        measured["variance"] ** 0.5,
        " ".join(f"{value:.3g}" for value in measured["std_by_channel"]),
        measured["num_examples"],
    )


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
