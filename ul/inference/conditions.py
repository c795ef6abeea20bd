"""Validate the conditions passed to a generator: labels, text or context frames."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ul.core.errors import DataError
from ul.stages.conditions import Conditions


@dataclasses.dataclass(frozen=True)
class AnyClass:
    """The condition of `count` samples that may be of any class."""

    count: int


# Class labels [N], or arrays of N rows by the name of the condition.
ConditionValues = Sequence[int] | np.ndarray | AnyClass | Mapping[str, Any]


def condition_value(values: ConditionValues, name: str) -> Any:
    """Return one condition by name; labels may be passed without a name.

    It is an array, or an AnyClass.

    Raises:
      KeyError: it is not there.
    """
    value = values[name] if isinstance(values, Mapping) else {"label": values}[name]
    return value if isinstance(value, AnyClass) else np.asarray(value)


def validate_conditions(
    conditions: Conditions, values: ConditionValues, encode_context: Callable
) -> dict[str, np.ndarray]:
    """Return every condition that a model takes, with its shape and dtype.

    Other entries are ignored. encode_context: from frames [N, t, H, W, C] to their latent.

    Raises:
      DataError: one is missing, or has another shape or dtype.
    """
    fields = conditions.fields
    validated: dict[str, np.ndarray] = {}
    for name, field in fields.items():
        try:
            value = condition_value(values, name)
        except KeyError as e:
            raise DataError(
                f"The conditions must include {', '.join(fields)}; {name!r} is missing. "
                "Pass a dict of arrays."
            ) from e
        if name == "label":
            validated[name] = _label(value, int(field.null))
        elif name == "context":
            frames = check_array(
                value, conditions.context_shape, np.uint8, "context frames"
            )
            validated[name] = encode_context(frames)
        else:
            validated[name] = _array(name, value, field.shape, field.dtype)
    if "text" in fields:
        num_tokens, length = fields["text"].shape[0], validated["text_length"]
        if length.min() < 0 or length.max() > num_tokens:
            raise DataError(
                f"text_length must be in 0..{num_tokens}, the number of tokens (0 is no "
                f"text); got {length.min()}..{length.max()}."
            )
    if len({len(value) for value in validated.values()}) != 1:
        counts = ", ".join(f"{name}: {len(value)}" for name, value in validated.items())
        raise DataError(
            f"All conditions must have the same number of rows; got {counts}."
        )
    return validated


def _label(label: np.ndarray | AnyClass, null: int) -> np.ndarray:
    if isinstance(label, AnyClass):
        return np.full(label.count, null, np.int32)
    is_list = label.ndim == 1 and label.size > 0 and label.dtype.kind in "iu"
    if is_list and label.min() >= 0 and label.max() < null:
        return label.astype(np.int32)
    shape = f"{label.dtype}{list(label.shape)}"
    raise DataError(
        f"labels must be a list of integers from 0 to {null - 1}; got "
        f"{f'{label.min()}..{label.max()}' if is_list else shape}. For samples of any class "
        "pass ul.AnyClass(count)."
    )


def _array(name: str, value: np.ndarray, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Return [N, *shape] of a dtype; the value's must be of the same kind."""
    kind = np.dtype(dtype).kind
    is_kind = value.dtype.kind == kind or kind == "i" and value.dtype.kind == "u"
    if not is_kind or not len(value) or value.shape[1:] != shape:
        raise DataError(
            f"{name} must be {np.dtype(dtype).name} [{', '.join(map(str, ('N', *shape)))}]; "
            f"got {value.dtype}{list(value.shape)}."
        )
    return value.astype(dtype)


def check_array(values, shape: tuple[int, ...], dtype, name: str) -> np.ndarray:
    """Return [N, *shape] of that dtype; any float is accepted for float32.

    Raises:
      DataError: another shape or dtype, or a value is not finite. The message calls the
        values `name`.
    """
    values = np.asarray(values)
    if values.ndim == len(shape) + 1 and values.shape[1:] == shape and len(values):
        if values.dtype == dtype or dtype == np.float32 and values.dtype.kind == "f":
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise DataError(f"{name} must be finite; they have NaN or infinity.")
            return values.astype(dtype)
    raise DataError(
        f"{name} must be {np.dtype(dtype).name} [N, {', '.join(map(str, shape))}] with N "
        f"above 0; got {values.dtype}{list(values.shape)}."
    )
