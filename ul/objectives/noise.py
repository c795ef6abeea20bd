"""The random numbers of an objective, by name and by row."""

import dataclasses

import jax

from ul.core import rng
from ul.diffusion import time_sampling
from ul.objectives.terms import Batch


@dataclasses.dataclass(frozen=True)
class BatchNoise:
    """The times and the noise of a batch.

    Those of row i depend on the key, a stream's name and i alone. The names select the
    random streams: renaming one changes all results.

    key: seeds everything except the times.
    time_key: seeds the shift that all times share.
    row, stratum: as in a batch (terms.py).
    """

    key: jax.Array
    time_key: jax.Array
    row: jax.Array
    stratum: jax.Array

    @classmethod
    def for_batch(cls, batch: Batch, key) -> "BatchNoise":
        """Return the noise of a batch under `key`."""
        return cls(key, key, batch["row"], batch["stratum"])

    def for_draw(self, number, num_draws: int) -> "BatchNoise":
        """Return draw `number` of `num_draws` for the same rows, with noise of its own.

        The times of a row over all draws are evenly spaced, so that each row is
        measured at low and at high noise levels.
        """
        key = rng.stream(self.key, "draw", number)
        stratum = (self.stratum + number) / num_draws
        return BatchNoise(key, self.time_key, self.row, stratum)

    def time(self, name: str):
        """Return t [B] in [0, 1), stratified over the global batch."""
        return time_sampling.sample_stratified(
            rng.stream(self.time_key, name), self.stratum
        )

    def normal(self, name: str, like):
        """Return standard normal noise of the shape of `like` [B, ...]."""
        return rng.normal(rng.stream(self.key, name), self.row, like.shape[1:])

    def uniform(self, name: str):
        """Return independent uniform numbers [B] in [0, 1)."""
        return rng.uniform(rng.stream(self.key, name), self.row)

    def dropout_key(self):
        """Return the key of the networks' dropout, which differs between microbatches."""
        return rng.stream(self.key, "dropout", self.row[0])
