"""What the stages' builders share: kinds, schedules, samplers, checked networks."""

import dataclasses
from typing import TypeVar

import jax.numpy as jnp

from ul.config import RunConfig, construct
from ul.config.registry import of_kind
from ul.core import arrays
from ul.core.errors import ConfigError
from ul.diffusion import samplers, schedules
from ul.models.encoder import Encoder
from ul.models.remat import POLICIES
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.stages.codec import Sampling

SCHEDULES = {"linear": schedules.Linear, "cosine": schedules.Cosine}
ATTENTION = ("xla", "cudnn")
Kind = TypeVar("Kind", bound=RunConfig)


def schedule(where: str, section: dict) -> schedules.Schedule:
    """A noise schedule whose ends are in order."""
    made = of_kind(where, SCHEDULES, section)
    if made.logsnr_max <= made.logsnr_min:
        raise ConfigError(
            f"{where}.logsnr_max {made.logsnr_max} must be above logsnr_min {made.logsnr_min}"
        )
    return made


def sampling(where: str, settings) -> Sampling:
    """A sampler that exists."""
    if settings.method not in samplers.METHODS:
        raise ConfigError(
            f"{where}.method is {settings.method!r}; known are {sorted(samplers.METHODS)}"
        )
    return Sampling(settings.method, settings.num_steps)


def network(where: str, module, section: dict, dtype: str, **given):
    made = construct(where, module, section, dtype=jnp.dtype(dtype), **given)
    for key, value in section.items():
        numbers = value if isinstance(value, tuple) else (value,)
        # No blocks outside: the outer level of a ViT then merges tokens, that is all.
        least = 0 if key in ("dropout", "depths") else 1
        counts = [n for n in numbers if type(n) in (int, float)]  # a bool is no count
        if any(n < least for n in counts):
            raise ConfigError(
                f"{where}.{key} is {value!r}; it must be at least {least}"
            )
    if made.remat not in POLICIES:
        raise ConfigError(
            f"{where}.remat is {made.remat!r}; known are {list(POLICIES)}"
        )
    if getattr(made, "dropout", 0.0) >= 1.0:
        raise ConfigError(f"{where}.dropout is {made.dropout}; it must be under 1")
    head_dim = getattr(made, "head_dim", None)
    if head_dim is not None:
        widths = getattr(made, "widths", None) or (made.width,)
        for width in widths:
            if head_dim < 1 or width % head_dim or width % 2:
                raise ConfigError(
                    f"{where}: width {width} is not an even multiple of head_dim {head_dim}"
                )
        if made.factorised and any(width // head_dim % 2 for width in widths):
            raise ConfigError(
                f"{where}.factorised: half of the heads see space and half time, so widths "
                f"{widths} must be even multiples of head_dim {head_dim}"
            )
        if made.attention not in ATTENTION:
            raise ConfigError(
                f"{where}.attention is {made.attention!r}; known are {list(ATTENTION)}"
            )
    return made


def _transformers(config: RunConfig) -> list[str]:
    """The config's sections that have transformer blocks."""
    return [n for n in ("prior", "decoder", "base") if hasattr(config, n)]


def uses_cudnn(config: RunConfig) -> bool:
    """Some network asks for attention that only a GPU has."""
    sections = (getattr(config, name) for name in _transformers(config))
    return any(section.get("attention") == "cudnn" for section in sections)


def portable(config: Kind) -> Kind:
    """The same networks with attention that runs on every device."""
    return dataclasses.replace(
        config,
        **{n: getattr(config, n) | {"attention": "xla"} for n in _transformers(config)},
    )


def check_levels(where: str, vit: ViT, shape: tuple[int, ...]) -> None:
    if len(vit.widths) != len(vit.depths) or not vit.widths:
        raise ConfigError(
            f"{where}.widths and {where}.depths must have the same length"
        )
    *outer, inner = vit.depths
    if 1 in outer or not inner:
        raise ConfigError(
            f"{where}.depths {vit.depths}: an outer level needs 2 blocks, one on each way, "
            "or none; the inner one at least 1"
        )
    merge = 2 ** (len(vit.widths) - 1)
    if any(size % merge for size in shape[-3:-1]):
        raise ConfigError(
            f"latents of {by(shape[:-1])} cannot be merged {merge}x for the "
            f"{len(vit.widths)} levels of {where}.widths"
        )


def check_factorised(
    where: str, made: ViT | UViT, shape: tuple[int, ...], text: bool = False
) -> None:
    """Factorised attention is of clips, and has no place for text's keys."""
    if made.factorised and (len(shape) != 4 or text):
        what = "told in words" if text else f"images, {by(shape)}"
        raise ConfigError(
            f"{where}.factorised is of clips [T, H, W, C], and these are {what}; set it to "
            "False"
        )


def apply(module, params, *args, key=None, condition=None):
    """The module with dropout seeded by `key`; without a key, without dropout.

    `condition`: what it is asked for, by the names of its arguments.
    """
    if key is None and getattr(module, "dropout", 0.0):
        module = module.clone(dropout=0.0)
    return module.apply(
        {"params": params},
        *args,
        **(condition or {}),
        rngs=None if key is None else {"dropout": key},
    )


def by(sizes: tuple[int, ...]) -> str:
    """As people write it: 32x48."""
    return "x".join(map(str, sizes))


def cell(
    where: str, made: UViT | Encoder, halvings: int, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Pixels on each side of one cell of a network's smallest grid, for data of `shape`.

    Raises:
      ConfigError: the data do not divide into such cells.
    """
    *grid, _ = shape
    patch = arrays.sides(made.patch, len(grid))
    if len(patch) != len(grid):
        raise ConfigError(
            f"{where}.patch is {made.patch}; data.image_shape {by(tuple(grid))} has "
            f"{len(grid)} sides"
        )
    found = tuple(side * 2**halvings for side in patch)
    if any(size % side for size, side in zip(grid, found, strict=True)):
        one = found[0] if len(set(found)) == 1 else by(found)
        raise ConfigError(
            f"data.image_shape {by(tuple(grid))} is not divisible by the {where}'s "
            f"downsampling {one}"
        )
    return found


def grid_of(decoder: UViT, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The grid that the UViT's transformer is on. Raises as `cell`."""
    side = cell("decoder", decoder, len(decoder.channels), shape)
    return tuple(n // s for n, s in zip(shape[:-1], side, strict=True))
