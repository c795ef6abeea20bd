"""What a sample is asked to be: a dict of arrays [B, ...], as a label or a text.

`null` names the entries there are, and of each the value that asks for nothing.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ul.diffusion.gaussian import expand
from ul.objectives.noise import Draws
from ul.objectives.terms import Batch

Condition = dict[str, jax.Array]
Null = Mapping[str, int | float]


def of(batch: Batch, null: Null) -> Condition:
    """The entries of a batch that are conditions."""
    return {name: batch[name] for name in null}


def dropped(
    condition: Condition, draws: Draws, *, rate: float, null: Null
) -> Condition:
    """Each example's entries, with probability `rate` all of them their null values."""
    drop = draws.uniform("label_dropout") < rate
    return {
        name: jnp.where(
            expand(drop, value), jnp.asarray(null[name], value.dtype), value
        )
        for name, value in condition.items()
    }


def nothing(like: Condition, null: Null) -> Condition:
    """The same rows, asked for nothing."""
    return {name: jnp.full_like(value, null[name]) for name, value in like.items()}
