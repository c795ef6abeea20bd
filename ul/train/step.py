"""One optimizer update."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ul.core import mesh, rng
from ul.core.metrics import Moments, merge
from ul.objectives.terms import Batch, Terms
from ul.train import ema
from ul.train.state import State


def split(batch: Batch, parts: int) -> Batch:
    """[B, ...] to [parts, B / parts, ...]; part j has the rows j, j + parts, ...

    Strided, so that every part still lies over all devices and over all strata.
    """
    return {
        k: v.reshape(v.shape[0] // parts, parts, *v.shape[1:]).swapaxes(0, 1)
        for k, v in batch.items()
    }


def accumulators(terms: Terms) -> dict[str, Moments]:
    """Moments of every per-example number, by name; nats carry their unit."""
    named = {f"{k}_nats": v for k, v in terms.nats.items()} | terms.stats
    return {k: Moments.of(v) for k, v in (named | {"loss_nats": terms.loss}).items()}


def gradients(objective: Callable, params, batch: Batch, key, step, accumulate: int):
    """Gradient of the mean loss over the batch, in `accumulate` microbatches."""

    def mean_loss(params, part):
        part = {k: mesh.constrain(v) for k, v in part.items()}
        terms = objective(params, part, key, step)
        return jnp.mean(terms.loss), accumulators(terms)

    gradient = jax.grad(mean_loss, has_aux=True)
    if accumulate == 1:
        grads, seen = gradient(params, batch)
        return mesh.constrain_leaves(grads), seen

    def add(total, part):
        grads, seen = gradient(params, part)
        return mesh.constrain_leaves(jax.tree.map(jnp.add, total, grads)), seen

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, seen = jax.lax.scan(add, zeros, split(batch, accumulate))
    metrics = jax.tree.map(lambda leaf: leaf[0], seen)
    for i in range(1, accumulate):
        metrics = merge(metrics, jax.tree.map(lambda leaf, i=i: leaf[i], seen))
    return jax.tree.map(lambda g: g / accumulate, total), metrics


def make(
    objective: Callable,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    root,
    accumulate: int,
) -> Callable[[State, Batch], tuple[State, dict[str, Moments]]]:
    """`step(state, batch) -> (state, metrics)`, a pure function.

    What it draws depends on the root key and the step alone. A gradient that is not
    finite changes nothing: the loop sees it in the metrics and stops.
    """

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Moments]]:
        key = rng.stream(root, "train", state.step)
        grads, metrics = gradients(
            objective, state.params, batch, key, state.step, accumulate
        )
        norm = optax.tree.norm(grads)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        new = State(
            step=state.step + 1,
            params=params,
            opt=opt,
            ema=ema.update(state.ema, params, state.step + 1),
        )
        good = jnp.isfinite(norm) & jnp.isfinite(metrics["loss_nats"].mean)
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
        metrics["grad_norm"] = Moments.of(norm[None])
        metrics["lr"] = Moments.of(jnp.asarray(schedule(state.step), jnp.float32)[None])
        return new, metrics

    return step
