"""What a caller asks of a generator, checked: labels, texts, first frames of clips."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ul import config
from ul.core.errors import DataError
from ul.stages import registry

Asked = Sequence[int] | np.ndarray | Mapping[str, np.ndarray]


def entry(asked: Asked, name: str) -> np.ndarray:
    """One of what is asked; labels may come alone. Raises KeyError."""
    given = asked if isinstance(asked, Mapping) else {"label": asked}
    return np.asarray(given[name])


def condition(
    of: config.GeneratorConfig, asked: Asked, latent: Callable
) -> dict[str, np.ndarray]:
    """Every entry that a model takes, of its shape and type; others are passed over.

    `latent(first frames)`: as the model is given them.

    Raises:
      DataError: one is missing, or is not what it must be.
    """
    fields, found = registry.conditions(of), {}
    for name, field in fields.items():
        try:
            value = entry(asked, name)
        except KeyError as e:
            raise DataError(
                f"this model is asked by {', '.join(fields)}; {name} is missing"
            ) from e
        if name == "label":
            found[name] = _label(value, field.null)
        elif name == "context":
            assert isinstance(of, config.Stage2Config)
            shape = (of.context_frames, *of.data.image_shape[1:])
            found[name] = latent(checked(value, shape, np.uint8, "given frames"))
        else:
            found[name] = _typed(name, value, field.shape, field.dtype)
    if "text" in fields:
        tokens, length = fields["text"].shape[0], found["text_length"]
        if length.min() < 0 or length.max() > tokens:
            raise DataError(
                f"text_length must be 0..{tokens}, the tokens; 0 is no text"
            )
    if len({len(value) for value in found.values()}) != 1:
        counts = ", ".join(f"{n}: {len(v)}" for n, v in found.items())
        raise DataError(f"conditions of unlike number of samples ({counts})")
    return found


def _label(label: np.ndarray, most: int | float) -> np.ndarray:
    if (
        label.ndim != 1
        or label.size == 0
        or label.dtype.kind not in "iu"
        or label.min() < 0
        or label.max() > most
    ):
        raise DataError(
            f"labels must be a list of whole numbers 0..{most} ({most} is any class)"
        )
    return label.astype(np.int32)


def _typed(name: str, value, shape: tuple[int, ...], dtype) -> np.ndarray:
    """[N, *shape]; its dtype's kind must be right."""
    kind = np.dtype(dtype).kind
    good = value.dtype.kind == kind or kind == "i" and value.dtype.kind == "u"
    if not good or not len(value) or value.shape[1:] != shape:
        raise DataError(
            f"{name} is {value.dtype}{list(value.shape)}; wanted are {np.dtype(dtype).name}"
            f" [N{''.join(f', {side}' for side in shape)}]"
        )
    return value.astype(dtype)


def checked(values, shape: tuple[int, ...], dtype, what: str) -> np.ndarray:
    """[N, *shape] of that type; any float for float32.

    Raises:
      DataError: they are not, `what` they are.
    """
    values = np.asarray(values)
    if values.ndim == len(shape) + 1 and values.shape[1:] == shape and len(values):
        if values.dtype == dtype or dtype == np.float32 and values.dtype.kind == "f":
            return values.astype(dtype)
    raise DataError(
        f"{what} are {values.dtype}{list(values.shape)}; wanted are "
        f"{np.dtype(dtype).name} [N, {', '.join(map(str, shape))}]"
    )
