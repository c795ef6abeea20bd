"""AdamW with warm-up, clipping and a weight-decay mask that covers every parameter."""

import optax

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
    *, lr: float, warmup: int, steps: int, final_fraction: float
) -> optax.Schedule:
    """Return a linear warm-up over `warmup` steps, then a cosine to `final_fraction` * lr.

    The cosine ends at `steps`. With `final_fraction` 1 the rate is constant.
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
    """Return AdamW on gradients that are clipped to a global norm of `clip`."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask),
    )
