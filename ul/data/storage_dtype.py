"""Arrays in the number format in which record shards store them."""

import numpy as np

from ul.core.errors import ConfigError, NonFiniteError


def cast_to_storage(
    values: np.ndarray,
    dtype: np.dtype,
    *,
    name: str,
    if_nonfinite: str,
    if_overflow: str,
) -> np.ndarray:
    """Return float32 values as the `dtype` in which they are stored.

    The messages to users call the values `name` and end with the advice.

    Raises:
      NonFiniteError: a value is NaN or infinite.
      ConfigError: a value is too large for the dtype.
    """
    if not np.isfinite(values).all():
        raise NonFiniteError(
            f"{name} must be finite; found NaN or infinity. {if_nonfinite}"
        )
    with np.errstate(over="ignore"):  # An overflow is an error below.
        stored = values.astype(dtype)
    if not np.isfinite(stored.astype(np.float32)).all():
        raise ConfigError(
            f"{name} must fit into {dtype.name}; the largest magnitude is "
            f"{np.abs(values).max():.4g}. {if_overflow}"
        )
    return stored
