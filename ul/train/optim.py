"""AdamW with warm-up, clipping, and a decay mask that must cover every parameter."""

import optax

from ul.core import trees
from ul.core.errors import ConfigError

# By the last part of the path: what weight decay pulls on, and what it leaves alone.
DECAYED = {"kernel"}
NOT_DECAYED = {"bias", "scale", "position", "embedding"}


def decay_mask(params):
    """True for kernels. A parameter of no known kind is an error, not a default.

    Raises:
      ConfigError: naming the parameter.
    """

    def decayed(path: str, leaf) -> bool:
        name = path.rsplit("/", 1)[-1]
        if name not in DECAYED | NOT_DECAYED:
            raise ConfigError(
                f"parameter {path} is of no kind known to train/optim.py; "
                "add its last name to DECAYED or NOT_DECAYED"
            )
        return name in DECAYED

    return trees.map_with_path(decayed, params)


def learning_rate(
    *, lr: float, warmup: int, steps: int, final_fraction: float
) -> optax.Schedule:
    """Linear from 0 over `warmup` steps, then a cosine to `final_fraction` * lr.

    `final_fraction` 1 is a constant rate.
    """
    return optax.join_schedules(
        [
            optax.linear_schedule(lr / max(warmup, 1), lr, max(warmup - 1, 0)),
            optax.cosine_decay_schedule(lr, max(steps - warmup, 1), final_fraction),
        ],
        [warmup],
    )


def adamw(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm of `clip`."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask),
    )
