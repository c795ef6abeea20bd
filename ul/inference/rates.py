"""The rate of single images under an autoencoder: bits per pixel, and where they are."""

import math
from typing import Any

import jax
import numpy as np

from ul.core import batching
from ul.core.errors import ConfigError
from ul.metrics import rate_split
from ul.metrics.rate_split import RateSplitNats
from ul.stages.stage import Stage

# A map shows one example, so it needs more noise levels than a mean over many examples.
MIN_DRAWS = 64


def split_nats(
    stage: Stage,
    params: Any,
    rows: dict,
    key,
    mesh: jax.sharding.Mesh,
    title: str = "",
    min_draws: int = MIN_DRAWS,
) -> RateSplitNats:
    """Return the split rate of `rows`: `image` uint8 [N, H, W, C], `row` and `stratum` [N].

    title: name of the progress bar; "" shows none. min_draws: each example is measured at
    this many noise levels, or at `eval.num_draws` if these are more.

    Raises:
      ConfigError: the latents of this stage have no rate that can be split.
    """
    diffusions = stage.joint_diffusion
    if diffusions is None:
        raise ConfigError(
            "The rate of single images needs a prior and a decoder that are diffusions; the "
            f"run is of stage {stage.name!r}. Load a run of stage 'joint'."
        )
    return batching.map_rows(
        lambda image, row, stratum: rate_split.split_rate_nats(
            diffusions.networks,
            diffusions.prior_schedule,
            params,
            image,
            row,
            stratum,
            key,
            num_draws=max(stage.evaluation.num_draws, min_draws),
        ),
        rows,
        batch_size=stage.evaluation.batch_size,
        mesh=mesh,
        title=title,
    )


def numbered(images: np.ndarray, first: int, total: int) -> dict[str, np.ndarray]:
    """Return images as rows, each with its number and its stratum in [0, 1)."""
    row = np.arange(first, first + len(images), dtype=np.int32)
    stratum = (row / total).astype(np.float32)
    return {"image": images, "row": row, "stratum": stratum}


def bits_per_pixel(nats: RateSplitNats, num_pixels: int) -> np.ndarray:
    """Return the whole rate of each image [N], with that of the noisy end."""
    axes = tuple(range(1, nats.by_position.ndim))
    total = np.asarray(nats.by_position).sum(axes) + np.asarray(nats.terminal)
    return total / (num_pixels * math.log(2.0))


def bit_maps(nats: RateSplitNats, num_pixels: int) -> np.ndarray:
    """Return the bits per pixel at each latent position [N, *grid]."""
    by_position = np.asarray(nats.by_position)
    num_positions = math.prod(by_position.shape[1:])
    return by_position * num_positions / (num_pixels * math.log(2.0))
