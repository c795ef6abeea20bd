"""The conditions that a generator samples from: class labels, text or context frames."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from ul.config.schema import DataConfig


class Condition(NamedTuple):
    """Shape and dtype of one condition in an example, and its null value.

    The null value stands for "unconditional" in label dropout and guidance.
    """

    shape: tuple[int, ...]
    dtype: Any
    null: int | float


@dataclasses.dataclass(frozen=True)
class Conditions:
    """All conditions of a generator by name; none for an autoencoder.

    context_shape: (frames, H, W, C) of the frames that continue, for a model of clips.
    Their latent is the condition "context".
    """

    fields: dict[str, Condition] = dataclasses.field(default_factory=dict)
    context_shape: tuple[int, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the conditions, in order."""
        return tuple(self.fields)

    @property
    def null(self) -> dict[str, int | float]:
        """The null value of each condition."""
        return {name: field.null for name, field in self.fields.items()}

    @property
    def context_frames(self) -> int:
        """The number of context frames; 0 for images."""
        return self.context_shape[0] if self.context_shape else 0

    @property
    def batch(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each condition in an example."""
        return {name: (f.shape, f.dtype) for name, f in self.fields.items()}

    def zeros(self) -> dict[str, Any]:
        """Return arrays of one example, to initialize a network with."""
        return {
            name: jnp.zeros((1, *f.shape), f.dtype) for name, f in self.fields.items()
        }


def label_conditions(num_classes: int) -> Conditions:
    """Return class labels, with `num_classes` itself as the null label."""
    return Conditions({"label": Condition((), jnp.int32, num_classes)})


def stage2_conditions(
    data: DataConfig, latent_shape: tuple[int, ...], context_frames: int
) -> Conditions:
    """Return the conditions of a stage 2: text, else context frames, else labels."""
    if data.text != (0, 0):
        return Conditions(
            {
                "text": Condition(data.text, jnp.float16, 0.0),
                "text_length": Condition((), jnp.int32, 0),
            }
        )
    if context_frames:
        context = Condition(latent_shape, jnp.float32, 0.0)
        shape = (context_frames, *data.image_shape[1:])
        return Conditions({"context": context}, shape)
    return label_conditions(data.num_classes)
