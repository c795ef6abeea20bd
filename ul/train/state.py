"""The state of a run: step, parameters, optimizer state and averages."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from ul.core import mesh as meshes


@flax.struct.dataclass
class TrainState:
    """Everything that training changes and that a checkpoint holds.

    step: number of completed optimizer updates.
    opt: state of the optimizer.
    ema: averages of the parameters by name, see `ul.core.ema_names`.
    """

    step: jax.Array
    params: Any
    opt: Any
    ema: dict[str, Any]


def create(
    params, tx: optax.GradientTransformation, ema_names: tuple[float | str, ...]
) -> TrainState:
    """Return the state before the first step, with averages equal to `params`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt=tx.init(params),
        ema={str(name): jax.tree.map(jnp.copy, params) for name in ema_names},
    )


@functools.lru_cache(maxsize=1)
def _trace(init, tx, ema_names):
    """Return the computation of the first state and its shapes.

    A run needs both, and tracing the networks takes longer than computing their state.
    """
    trace = jax.make_jaxpr(lambda: create(init(), tx, ema_names), return_shape=True)
    return trace()


def abstract_state(init, tx, ema_names, mesh) -> TrainState:
    """Return shapes, dtypes and shardings of the state on `mesh`; compute nothing."""
    _, shapes = _trace(init, tx, ema_names)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.tree_shardings(mesh, shapes),
    )


def initialize(init, tx, ema_names, mesh) -> TrainState:
    """Return the state before the first step, computed directly in its sharding."""
    abstract = abstract_state(init, tx, ema_names, mesh)
    computation, _ = _trace(init, tx, ema_names)
    leaves, structure = jax.tree.flatten(abstract)
    with jax.set_mesh(mesh):
        state = jax.jit(
            core.jaxpr_as_fun(computation),
            out_shardings=[leaf.sharding for leaf in leaves],
        )()
    return jax.tree.unflatten(structure, state)


def replace_networks(state: TrainState, initial: Mapping[str, Any]) -> TrainState:
    """Return a first state with other parameters and averages of some networks."""

    def replaced(params):
        copies = {name: jax.tree.map(jnp.copy, tree) for name, tree in initial.items()}
        return params | copies

    return dataclasses.replace(
        state,
        params=replaced(state.params),
        ema={name: replaced(average) for name, average in state.ema.items()},
    )
