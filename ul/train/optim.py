"""Optimizers and learning rates, and a weight-decay mask that covers every parameter."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
import optax.contrib

from ul.core import trees
from ul.core.errors import ConfigError

# Parameters with and without weight decay, by the last part of their path.
DECAYED = {"kernel"}
NOT_DECAYED = {"bias", "scale", "position", "embedding"}


def decay_mask(params):
    """Return True for each kernel and False for the other parameters.

    Raises:
      ConfigError: a parameter is in neither DECAYED nor NOT_DECAYED.
    """

    def is_decayed(path: str, leaf) -> bool:
        name = path.rsplit("/", 1)[-1]
        if name not in DECAYED | NOT_DECAYED:
            raise ConfigError(
                f"Every parameter must be listed as decayed or not; {path} is not. Add "
                f"{name!r} to DECAYED or NOT_DECAYED in ul/train/optim.py."
            )
        return name in DECAYED

    return trees.map_with_path(is_decayed, params)


def learning_rate(
    *,
    lr: float,
    warmup: int,
    steps: int,
    final_fraction: float,
    schedule: str = "cosine",
    decay_fraction: float = 0.2,
) -> optax.Schedule:
    """Return a linear warm-up over `warmup` steps to `lr`, and then a schedule of SCHEDULES.

    Raises:
      ConfigError: an unknown schedule.
    """
    after = _lookup("schedule", schedule, SCHEDULES)(
        lr, max(steps - warmup, 1), warmup, final_fraction, decay_fraction
    )
    linear = optax.linear_schedule(lr / max(warmup, 1), lr, max(warmup - 1, 0))
    return optax.join_schedules([linear, after], [warmup])


def _cosine(lr, steps, warmup, final_fraction, decay_fraction):
    """Return a cosine decay from lr to final_fraction * lr at the last step."""
    return optax.cosine_decay_schedule(lr, steps, final_fraction)


def _constant(lr, steps, warmup, final_fraction, decay_fraction):
    return optax.constant_schedule(lr)


def _warmup_stable_decay(lr, steps, warmup, final_fraction, decay_fraction):
    """Return a constant rate that falls linearly over the last decay_fraction of the steps.

    It ends at final_fraction * lr (Hu et al., MiniCPM, arXiv 2404.06395).
    """
    decay_steps = max(round(decay_fraction * (steps + warmup)), 1)
    return optax.linear_schedule(
        lr, final_fraction * lr, decay_steps, max(steps - decay_steps, 0)
    )


def _inverse_sqrt(lr, steps, warmup, final_fraction, decay_fraction):
    """Return lr * sqrt(warmup / step) (Vaswani et al., arXiv 1706.03762)."""
    start = max(warmup, 1)
    return lambda step: lr * jnp.sqrt(start / (start + jnp.maximum(step, 0)))


# By name, functions of lr, the steps after the warm-up, the warm-up, and the two fractions.
SCHEDULES = {
    "cosine": _cosine,
    "constant": _constant,
    "warmup_stable_decay": _warmup_stable_decay,
    "inverse_sqrt": _inverse_sqrt,
}


def adamw(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """Return AdamW on gradients that are clipped to a global norm of `clip`."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask),
    )


def muon(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """Return Muon on hidden layers, and AdamW on all others.

    Muon is that of Jordan et al. 2024 (kellerjordan.github.io/posts/muon).
    Updates have the root mean square of AdamW's (Liu et al., arXiv 2502.16982), so that
    both take the same learning rate. b1, b2: those of AdamW.
    """
    hidden = optax.contrib.muon(
        schedule,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=_muon_dimensions,
        consistent_rms=0.2,
    )
    others = optax.adamw(
        schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask
    )
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.partition({"muon": hidden, "adamw": others}, _optimizer_by_parameter),
    )


# First, last and conditioning layers, for which Muon is not meant; AdamW trains them.
NOT_HIDDEN = {"stem", "head", "latent", "latent_input", "conditioning"}


def _is_hidden(path: str, leaf) -> bool:
    parts = path.split("/")
    return parts[-1] in DECAYED and not NOT_HIDDEN & set(parts) and leaf.ndim > 1


def _optimizer_by_parameter(params):
    """Return "muon" for each kernel of a hidden layer, and "adamw" for the others."""
    return trees.map_with_path(
        lambda path, leaf: "muon" if _is_hidden(path, leaf) else "adamw", params
    )


def _muon_dimensions(params):
    """Return the input and output axes of each kernel of a hidden layer."""

    def dimensions(path: str, leaf):
        # A scanned stack of blocks has one matrix per block, of a first axis of its own.
        first = 1 if leaf.ndim == 3 else 0
        axes = tuple(range(first, leaf.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(axes, leaf.ndim - 1)

    return trees.map_with_path(dimensions, params)


OPTIMIZERS = {"adamw": adamw, "muon": muon}


def optimizer(
    kind: str, schedule: optax.Schedule, **settings: float
) -> optax.GradientTransformation:
    """Return an optimizer of OPTIMIZERS with its settings.

    Raises:
      ConfigError: an unknown kind.
    """
    return _lookup("kind", kind, OPTIMIZERS)(schedule, **settings)


def _lookup(key: str, name: str, rows: Mapping[str, Callable]) -> Callable:
    if name not in rows:
        raise ConfigError(
            f"optimizer.{key} must be one of {', '.join(rows)}; got {name!r}."
        )
    return rows[name]
