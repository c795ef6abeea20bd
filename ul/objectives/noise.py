"""What an objective draws for the rows of a batch, by name."""

import dataclasses

import jax

from ul.core import rng
from ul.diffusion import time_sampling
from ul.objectives.terms import Batch


@dataclasses.dataclass(frozen=True)
class Draws:
    """Times and noises of a batch: row i's depend on the key, a name and i alone.

    time_key: of the shift that all times share.
    """

    key: jax.Array
    time_key: jax.Array
    row: jax.Array
    stratum: jax.Array

    @classmethod
    def of(cls, batch: Batch, key) -> "Draws":
        return cls(key, key, batch["row"], batch["stratum"])

    def repeated(self, number, total: int) -> "Draws":
        """The `number`-th of `total` draws of the same rows, each with its own noise.

        Together a row's times are evenly spaced: where single rows matter, none is
        seen at high noise alone.
        """
        key = rng.stream(self.key, "draw", number)
        return Draws(key, self.time_key, self.row, (self.stratum + number) / total)

    def time(self, name: str):
        """t [B], stratified over all rows drawn together."""
        return time_sampling.stratified(rng.stream(self.time_key, name), self.stratum)

    def noise(self, name: str, like):
        """Standard normal noise of the shape of `like` [B, ...]."""
        return rng.normal(rng.stream(self.key, name), self.row, like.shape[1:])

    def uniform(self, name: str):
        """[B] in [0, 1), independent."""
        return rng.uniform(rng.stream(self.key, name), self.row)

    def dropout(self):
        """The key of the networks' dropout; microbatches have different rows."""
        return rng.stream(self.key, "dropout", self.row[0])
