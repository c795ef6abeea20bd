"""Initialize the parameters of a network."""

import functools

import flax.linen as nn
import jax


@functools.partial(jax.jit, static_argnums=0, inline=True)
def initialize(module: nn.Module, keys, *args, **conditions):
    """Return the parameters of `module` for inputs of these shapes, as a nested dict.

    keys: a random key, or a dict with one for each RNG stream of flax (`params`, `dropout`).
    `jit` caches the trace, so that a process that loads several runs with equal modules and
    shapes traces `init` once; `inline` leaves the programs of the callers unchanged.
    """
    return module.init(keys, *args, **conditions)["params"]
