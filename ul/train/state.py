"""The state of a run: step, parameters, optimizer state and averages."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

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


def abstract_state(init, tx, ema_names, mesh) -> TrainState:
    """Return shapes, dtypes and shardings of the state on `mesh`; compute nothing."""
    shapes = jax.eval_shape(lambda: create(init(), tx, ema_names))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.tree_shardings(mesh, shapes),
    )


def initialize(init, tx, ema_names, mesh) -> TrainState:
    """Return the state before the first step, computed directly in its sharding."""
    shardings = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_state(init, tx, ema_names, mesh)
    )
    with jax.set_mesh(mesh):
        return jax.jit(lambda: create(init(), tx, ema_names), out_shardings=shardings)()
