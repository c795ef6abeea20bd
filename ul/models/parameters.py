"""The first parameters of a network."""

import functools

import flax.linen as nn
import jax


@functools.partial(jax.jit, static_argnums=0, inline=True)
def initialize(module: nn.Module, keys, *args, **conditions):
    """Return the parameters of `module` for inputs of these shapes, as a nested dict.

    keys: a random key, or one for each of flax's streams (`params`, `dropout`).
    A process that loads several runs with equal networks traces them once: `jit` finds an
    equal module with equal shapes in its cache. Inlined, it changes no program.
    """
    return module.init(keys, *args, **conditions)["params"]
