"""One optimizer update."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ul.core import mesh, rng
from ul.core.metrics import Moments, merge_moments
from ul.objectives.terms import Batch, Terms
from ul.train import ema
from ul.train.state import TrainState


def split_microbatches(batch: Batch, count: int) -> Batch:
    """Reshape [B, ...] to [count, B / count, ...]; part j has the rows j, j + count, ...

    The rows are strided so that every part stays spread over all devices and all strata.
    """
    return {
        k: v.reshape(v.shape[0] // count, count, *v.shape[1:]).swapaxes(0, 1)
        for k, v in batch.items()
    }


@jax.jit
def mirror_images(batch: Batch) -> Batch:
    """Mirror, left to right, the images [B, ..., H, W, C] that `mirrored` [B] selects."""
    if "mirrored" not in batch:
        return batch
    rest = {k: v for k, v in batch.items() if k != "mirrored"}
    image = batch["image"]
    mirrored = batch["mirrored"].reshape(-1, *(1,) * (image.ndim - 1))
    return rest | {"image": jnp.where(mirrored, image[..., ::-1, :], image)}


def term_moments(terms: Terms) -> dict[str, Moments]:
    """Return the moments of every per-example term; names of terms in nats end in _nats."""
    values = {f"{k}_nats": v for k, v in terms.nats.items()} | terms.stats
    return {
        k: Moments.from_values(v)
        for k, v in (values | {"loss_nats": terms.loss}).items()
    }


def gradients(objective: Callable, params, batch: Batch, key, step, accumulate: int):
    """Return the gradient of the mean loss over the batch, and the moments of its terms.

    The gradient is accumulated over `accumulate` microbatches.
    """

    def mean_loss(params, microbatch):
        microbatch = {k: mesh.constrain_activations(v) for k, v in microbatch.items()}
        terms = objective(params, microbatch, key, step)
        return jnp.mean(terms.loss), term_moments(terms)

    gradient = jax.grad(mean_loss, has_aux=True)
    if accumulate == 1:
        grads, moments = gradient(params, batch)
        return mesh.constrain_parameters(grads), moments

    def add(total, microbatch):
        grads, moments = gradient(params, microbatch)
        return mesh.constrain_parameters(jax.tree.map(jnp.add, total, grads)), moments

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, stacked = jax.lax.scan(add, zeros, split_microbatches(batch, accumulate))
    moments = jax.tree.map(lambda leaf: leaf[0], stacked)
    for i in range(1, accumulate):
        moments = merge_moments(
            moments, jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        )
    return jax.tree.map(lambda g: g / accumulate, total), moments


def make_train_step(
    objective: Callable,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    root,
    accumulate: int,
    clip: float = jnp.inf,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Moments]]]:
    """Return `step(state, batch) -> (state, moments)`, a pure function.

    Its randomness depends on the key `root` and on the step alone. An update whose loss or
    gradient is not finite leaves the state unchanged; the loop finds it in the moments and
    stops. `schedule` is the learning rate that is logged, and `clip` the norm of the
    gradient above which a step counts as clipped.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Moments]]:
        key = rng.stream(root, "train", state.step)
        grads, moments = gradients(
            objective, state.params, batch, key, state.step, accumulate
        )
        norm = optax.tree.norm(grads)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        updated = TrainState(
            step=state.step + 1,
            params=params,
            opt=opt,
            ema=ema.update(state.ema, params, state.step + 1),
        )
        is_finite = jnp.isfinite(norm) & jnp.isfinite(moments["loss_nats"].mean)
        updated = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old), updated, state
        )
        moments["grad_norm"] = Moments.from_values(norm[None])
        moments["clipped"] = Moments.from_values(
            (norm > clip)[None].astype(jnp.float32)
        )
        moments["lr"] = Moments.from_values(
            jnp.asarray(schedule(state.step), jnp.float32)[None]
        )
        return updated, moments

    return step
