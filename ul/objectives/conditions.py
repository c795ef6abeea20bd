"""The conditions of a sample, such as a class label or a text, as a dict of arrays.

`null` names the entries of a condition and gives the value of each that means "no
condition".
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ul.diffusion.gaussian import expand
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch

ConditionArrays = dict[str, jax.Array]
NullValues = Mapping[str, int | float]


def from_batch(batch: Batch, null: NullValues) -> ConditionArrays:
    """Return the entries of a batch that are conditions, each [B, ...]."""
    return {name: batch[name] for name in null}


def drop(
    condition: ConditionArrays, noise: BatchNoise, *, rate: float, null: NullValues
) -> ConditionArrays:
    """Replace all entries of an example by their null values, with probability `rate`."""
    is_dropped = noise.uniform("label_dropout") < rate
    return {
        name: jnp.where(
            expand(is_dropped, value), jnp.asarray(null[name], value.dtype), value
        )
        for name, value in condition.items()
    }


def null_like(condition: ConditionArrays, null: NullValues) -> ConditionArrays:
    """Return null values of the shape and dtype of `condition`."""
    return {name: jnp.full_like(value, null[name]) for name, value in condition.items()}
