"""Check every key, type and range of a config, and turn it into frozen dataclasses."""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection
from typing import Any

from ul.core.ema_names import is_valid
from ul.core.errors import ConfigError

# Key, test, and what the value must be. Keys that a stage does not have are skipped.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda v: 0 <= v < 2**31, "in [0, 2^31)"),
    ("steps", lambda v: v >= 1, "at least 1"),
    ("batch_size", lambda v: v >= 1, "at least 1"),
    ("accumulate", lambda v: v >= 1, "at least 1"),
    ("dtype", lambda v: v in ("float32", "bfloat16"), "float32 or bfloat16"),
    (
        "ema",
        lambda v: v and all(map(is_valid, v)),
        "decays between 0 and 1, or power:<width> with a width under 0.2887",
    ),
    (
        "data.image_shape",
        lambda v: len(v) in (3, 4) and min(v) >= 1 and v[-1] in (1, 3),
        "(height, width, channels) or, for clips, (frames, height, width, channels), with "
        "1 or 3 channels",
    ),
    ("data.num_classes", lambda v: v >= 1, "at least 1"),
    ("data.augment", lambda v: v in ("stream", "example"), "stream or example"),
    (
        "data.text",
        lambda v: v == (0, 0) or min(v) >= 1,
        "(tokens, channels), or (0, 0) for no text",
    ),
    ("data.threads", lambda v: v >= 1, "at least 1"),
    ("optimizer.lr", lambda v: v > 0, "positive"),
    ("optimizer.warmup", lambda v: v >= 0, "0 or more"),
    ("optimizer.final_fraction", lambda v: 0 <= v <= 1, "in [0, 1]"),
    ("optimizer.b1", lambda v: 0 <= v < 1, "in [0, 1)"),
    ("optimizer.b2", lambda v: 0 <= v < 1, "in [0, 1)"),
    ("optimizer.weight_decay", lambda v: v >= 0, "0 or more"),
    ("optimizer.decay_fraction", lambda v: 0 < v <= 1, "in (0, 1]"),
    ("optimizer.clip", lambda v: v > 0, "positive"),
    ("log.every", lambda v: v >= 1, "at least 1"),
    ("validation.every", lambda v: v >= 1, "at least 1"),
    ("validation.num_images", lambda v: v >= 1, "at least 1"),
    ("validation.num_examples", lambda v: v >= 1, "at least 1"),
    ("checkpoint.every", lambda v: v >= 1, "at least 1"),
    ("checkpoint.minutes", lambda v: v > 0, "positive"),
    ("checkpoint.keep", lambda v: v >= 1, "at least 1"),
    ("checkpoint.keep_every", lambda v: v >= 0, "0 or more"),
    ("checkpoint.keep_minutes", lambda v: v >= 0, "0 or more"),
    *(
        (f"watchdog.{phase}", lambda v: v > 0, "positive (seconds)")
        for phase in ("start", "restore", "compile", "step", "save", "evaluation")
    ),
    ("log.peak_tflops", lambda v: v is None or v > 0, "positive (TFLOP/s), or None"),
    ("sampling.num_steps", lambda v: v >= 1, "at least 1"),
    ("eval.batch_size", lambda v: v >= 1, "at least 1"),
    ("eval.num_examples", lambda v: v >= 2, "at least 2"),
    ("eval.num_draws", lambda v: v >= 1, "at least 1"),
    ("eval.num_samples", lambda v: v >= 2, "at least 2"),
    ("loss.ramp_steps", lambda v: v >= 0, "0 or more"),
    ("loss.rate_floor_bpp", lambda v: v is None or v >= 0, "0 or more"),
    ("loss.precision", lambda v: v > 0, "positive"),
    ("loss.kl_weight", lambda v: v > 0, "positive"),
    ("loss.label_dropout", lambda v: 0 <= v < 1, "in [0, 1)"),
    (
        "latent_shape",
        lambda v: len(v) in (3, 4) and min(v) >= 1,
        "(h, w, c), or (t, h, w, c) for clips, with sizes of at least 1",
    ),
    ("latent_variance", lambda v: v is None or v > 0, "positive, or None"),
    ("context_frames", lambda v: v >= 0, "0 or more"),
    (
        "latent_dtype",
        lambda v: v in ("float16", "bfloat16", "float32"),
        "float16, bfloat16 or float32",
    ),
    ("scale", lambda v: v > 0, "positive"),
)


def validate(config_class: type, config: dict[str, Any]) -> Any:
    """Parse a config (nested dicts) into its frozen dataclass, `config_class`.

    Raises:
      ConfigError: unknown or missing key, wrong type, value out of range, settings
        that do not fit each other; with the key and what to change.
    """
    parsed = construct("", config_class, config)
    for key, is_allowed, requirement in RULES:
        try:
            value = _at(parsed, key)
        except (AttributeError, KeyError):
            continue
        if not is_allowed(value):
            raise ConfigError(f"{key} must be {requirement}; got {value!r}.")
    accumulate = getattr(parsed, "accumulate", 1)
    if getattr(parsed, "batch_size", 0) % accumulate:
        raise ConfigError(
            f"batch_size must be divisible by accumulate; got batch_size "
            f"{parsed.batch_size} and accumulate {accumulate}."
        )
    return parsed


def constructor_parameters(factory: Callable) -> dict[str, inspect.Parameter]:
    """Return a constructor's parameters; a Linen module's own fields are not settings."""
    parameters = dict(inspect.signature(factory).parameters)
    if "parent" in parameters:
        del parameters["parent"], parameters["name"]
    return parameters


def check_section(
    path: str, factory: Callable, section: dict, supplied: Collection[str] = ()
) -> dict[str, Any]:
    """Return the settings of a section, typed as the arguments of `factory`.

    path: dotted path of the section, for error messages. supplied: arguments of `factory`
    that a config does not have.

    Raises:
      ConfigError: unknown or missing key, or a value of the wrong type.
    """
    parameters = constructor_parameters(factory)
    hints = typing.get_type_hints(factory)
    allowed = parameters.keys() - set(supplied)
    prefix = f"{path}." if path else ""
    for key in section:
        if key not in allowed:
            nearest = difflib.get_close_matches(key, allowed, 1)
            hint = (
                f"Did you mean {prefix}{nearest[0]}?"
                if nearest
                else f"Known keys are {', '.join(sorted(allowed))}."
            )
            raise ConfigError(f"Unknown key {prefix}{key}. {hint}")
    for name in sorted(allowed - section.keys()):
        if parameters[name].default is inspect.Parameter.empty:
            raise required_error(f"{prefix}{name}")
    return {k: _typed(f"{prefix}{k}", hints.get(k, Any), v) for k, v in section.items()}


def construct(path: str, factory: Callable, section: dict, **supplied: Any) -> Any:
    """Return `factory(**section, **supplied)`, checked as `check_section` does."""
    return factory(**check_section(path, factory, section, supplied), **supplied)


def _typed(key: str, hint: Any, value: Any) -> Any:
    """Convert lists to tuples, ints to floats and dicts to dataclasses, as hinted."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must be a dict of settings; got {value!r}.")
        return construct(key, hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise ConfigError(f"{key} must have {len(inner)} entries; got {value!r}.")
        return tuple(_typed(key, inner[0], v) for v in value)
    if origin is types.UnionType:
        if value is None:
            return None
        options = typing.get_args(hint)
        is_text = isinstance(value, str) and str in options
        tuples = [option for option in options if typing.get_origin(option) is tuple]
        if tuples and isinstance(value, list | tuple):
            return _typed(key, tuples[0], value)
        return _typed(key, str if is_text else options[0], value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{key} must be a finite number; got {value}.")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool, dict) and isinstance(value, hint):
        return value
    if hint is Any:
        return value
    name = getattr(hint, "__name__", str(hint))
    if value is None:
        raise required_error(key)
    raise ConfigError(f"{key} must be of type {name}; got {value!r}.")


def required_error(key: str) -> ConfigError:
    """Return the error for a key of the config that has no value."""
    return ConfigError(
        f"{key} is required, but it is not set. Pass --config.{key}=VALUE."
    )


def _at(parsed: Any, key: str) -> Any:
    for part in key.split("."):
        parsed = parsed[part] if isinstance(parsed, dict) else getattr(parsed, part)
    return parsed
