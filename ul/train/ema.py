"""Exponential moving averages of the parameters."""

import jax
import jax.numpy as jnp


def decay_at(step, decay: float):
    """The decay after `step` updates: (1 + step) / (10 + step) until it reaches `decay`.

    A fixed decay would keep the random start for 1 / (1 - decay) steps.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(ema: dict, params, step) -> dict:
    """Averages moved towards the *new* `params`, those after update number `step`."""

    def moved(name: str, average):
        rate = 1.0 - decay_at(step, float(name))
        return jax.tree.map(lambda e, p: e + rate * (p - e), average, params)

    return {name: moved(name, average) for name, average in ema.items()}
