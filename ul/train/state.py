"""The one state of a run."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ul.core import mesh as meshes


@flax.struct.dataclass
class State:
    """step: optimizer updates completed. ema: parameters averaged, by name."""

    step: jax.Array
    params: Any
    opt: Any
    ema: dict[str, Any]


def create(
    params, tx: optax.GradientTransformation, decays: tuple[float | str, ...]
) -> State:
    """The state before the first step."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt=tx.init(params),
        ema={str(decay): jax.tree.map(jnp.copy, params) for decay in decays},
    )


def abstract(init, tx, decays, mesh) -> State:
    """Shapes, dtypes and shardings of the state on `mesh`; nothing is computed."""
    shapes = jax.eval_shape(lambda: create(init(), tx, decays))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.shardings(mesh, shapes),
    )


def initialise(init, tx, decays, mesh) -> State:
    """The state before the first step, made where it will lie."""
    shardings = jax.tree.map(
        lambda leaf: leaf.sharding, abstract(init, tx, decays, mesh)
    )
    with jax.set_mesh(mesh):
        return jax.jit(lambda: create(init(), tx, decays), out_shardings=shardings)()
