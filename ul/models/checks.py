"""Checks of the networks' settings that several networks share.

`section` is the network's section of the config, for error messages.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ul.core import arrays
from ul.core.errors import ConfigError
from ul.models.attention_kernels import IMPLEMENTATIONS
from ul.models.remat import POLICIES

# Settings that may be zero; all other counts are at least 1.
_MAY_BE_ZERO = ("dropout", "level_dropout", "depths", "num_classes", "text_channels")


def shape_text(sizes: Sequence[int]) -> str:
    """Return sizes as people write them: 32x48."""
    return "x".join(map(str, sizes))


def check_settings(section: str, module: Any) -> None:
    """Check counts, dropout and the remat policy of a network, where it has them.

    Raises:
      ConfigError: one is out of range.
    """
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        minimum = 0 if field.name in _MAY_BE_ZERO else 1
        # type() and not isinstance(): a bool is not a count.
        if any(n < minimum for n in numbers if type(n) in (int, float)):
            raise ConfigError(
                f"{section}.{field.name} must be at least {minimum}; got {value!r}."
            )
    remat = getattr(module, "remat", "none")
    if remat not in POLICIES:
        raise ConfigError(
            f"{section}.remat must be one of {', '.join(POLICIES)}; got {remat!r}."
        )
    dropout = getattr(module, "dropout", 0.0)
    if dropout >= 1.0:
        raise ConfigError(f"{section}.dropout must be below 1; got {dropout}.")


def check_transformer(
    section: str,
    module: Any,
    widths: Sequence[int],
    shape: Sequence[int],
    has_text: bool = False,
) -> None:
    """Check heads and attention of transformer blocks on data of `shape`.

    Raises:
      ConfigError: widths that the heads do not divide, unknown attention, or factorized
        attention of images or with text.
    """
    for width in widths:
        if module.head_dim < 1 or width % module.head_dim or width % 2:
            raise ConfigError(
                f"{section}: every width must be even and a multiple of head_dim; got "
                f"width {width} and head_dim {module.head_dim}."
            )
    if module.attention not in IMPLEMENTATIONS:
        raise ConfigError(
            f"{section}.attention must be one of {', '.join(IMPLEMENTATIONS)}; got "
            f"{module.attention!r}."
        )
    if not module.factorized:
        return
    if any(width // module.head_dim % 2 for width in widths):
        raise ConfigError(
            f"{section}.factorized needs an even number of heads, half for space and half "
            f"for time; got widths {tuple(widths)} and head_dim {module.head_dim}."
        )
    if len(shape) != 4 or has_text:
        data = "text conditioning" if has_text else f"images of {shape_text(shape)}"
        raise ConfigError(
            f"{section}.factorized needs clips (T, H, W, C) without text; got {data}. "
            "Set it to False."
        )


def downsampling(
    section: str,
    patch: int | tuple[int, ...],
    halvings: int,
    image_shape: Sequence[int],
) -> tuple[int, ...]:
    """Return the pixels on each side of one cell of a network's smallest grid.

    Raises:
      ConfigError: images of `image_shape` do not divide into such cells.
    """
    *grid, _ = image_shape
    sides = arrays.block_shape(patch, len(grid))
    if len(sides) != len(grid):
        raise ConfigError(
            f"{section}.patch must have one size for each of the {len(grid)} sides of "
            f"data.image_shape {shape_text(grid)}; got {patch}."
        )
    factors = tuple(side * 2**halvings for side in sides)
    if any(size % factor for size, factor in zip(grid, factors, strict=True)):
        raise ConfigError(
            f"data.image_shape must be divisible by the {section}'s downsampling "
            f"{factor_text(factors)}; got {shape_text(grid)}."
        )
    return factors


def factor_text(factors: Sequence[int]) -> str:
    """Return downsampling factors as one number if they are equal, else as 4x8x8."""
    return str(factors[0]) if len(set(factors)) == 1 else shape_text(factors)


def check_level_dropout(section: str, rates: tuple[float, ...], levels: int) -> None:
    """Raise ConfigError unless there is one rate in [0, 1) for each level, or none."""
    if rates and (len(rates) != levels or not all(0.0 <= r < 1.0 for r in rates)):
        raise ConfigError(
            f"{section}.level_dropout must hold {levels} numbers in [0, 1), one for each of "
            f"{section}.channels, or none; got {rates}."
        )
