"""What an objective draws for the rows of a batch, by name."""

import dataclasses

import jax

from ul.core import rng
from ul.diffusion import times
from ul.objectives.terms import Batch


@dataclasses.dataclass(frozen=True)
class Draws:
    """Times and noises of a batch: row i's depend on the key, a name and i alone."""

    key: jax.Array
    row: jax.Array
    stratum: jax.Array

    @classmethod
    def of(cls, batch: Batch, key) -> "Draws":
        return cls(key, batch["row"], batch["stratum"])

    def time(self, name: str):
        """t [B], stratified over all rows drawn together."""
        return times.stratified(rng.stream(self.key, name), self.stratum)

    def noise(self, name: str, like):
        """Standard normal noise of the shape of `like` [B, ...]."""
        return rng.normal(rng.stream(self.key, name), self.row, like.shape[1:])

    def uniform(self, name: str):
        """[B] in [0, 1), independent."""
        return rng.uniform(rng.stream(self.key, name), self.row)

    def dropout(self):
        """The key of the networks' dropout; microbatches have different rows."""
        return rng.stream(self.key, "dropout", self.row[0])
