"""From nested dicts to the frozen class of a stage, every key, type and range checked."""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from ul.config.stages import STAGES, RunConfig, Stage2Config, TrainConfig
from ul.core.ema_names import is_average
from ul.core.errors import ConfigError

# (key, test, what the value must be). A key of another stage is passed over.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda v: 0 <= v < 2**31, "in [0, 2^31)"),
    ("steps", lambda v: v >= 1, "at least 1"),
    ("batch_size", lambda v: v >= 1, "at least 1"),
    ("accumulate", lambda v: v >= 1, "at least 1"),
    ("dtype", lambda v: v in ("float32", "bfloat16"), "float32 or bfloat16"),
    (
        "ema",
        lambda v: v and all(map(is_average, v)),
        "decays between 0 and 1, or power:<width> with a width under 0.2887",
    ),
    (
        "data.image_shape",
        lambda v: len(v) in (3, 4) and min(v) >= 1 and v[-1] in (1, 3),
        "(height, width, 1 or 3 channels), of clips (frames, height, width, channels)",
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
    ("watchdog", lambda v: min(vars(v).values()) > 0, "positive seconds"),
    ("sampling.num_steps", lambda v: v >= 1, "at least 1"),
    ("eval.batch_size", lambda v: v >= 1, "at least 1"),
    ("eval.num_examples", lambda v: v >= 2, "at least 2"),
    ("eval.num_draws", lambda v: v >= 1, "at least 1"),
    ("loss.factor", lambda v: v > 1, "above 1 (at 1 and below no bits are kept)"),
    ("loss.ramp_steps", lambda v: v >= 0, "0 or more"),
    ("loss.rate_floor_bpp", lambda v: v >= 0, "0 or more"),
    ("loss.precision", lambda v: v > 0, "positive"),
    ("loss.kl_weight", lambda v: v > 0, "positive"),
    ("loss.label_dropout", lambda v: 0 <= v < 1, "in [0, 1)"),
    ("latent_shape", lambda v: len(v) in (3, 4) and min(v) >= 1, "3 or 4 sizes"),
    ("context_frames", lambda v: v >= 0, "0 or more"),
    (
        "latent_dtype",
        lambda v: v in ("float16", "bfloat16", "float32"),
        "float16, bfloat16 or float32",
    ),
    ("scale", lambda v: v > 0, "positive"),
)


def parse(config: dict, kind: type[RunConfig] = TrainConfig) -> Any:
    """A resolved config (nested dicts) to a frozen object of a `kind` of stage.

    Raises:
      ConfigError: unknown or missing key, wrong type, value out of range, settings
        that do not fit each other; with the key and what to change.
    """
    stage = config.get("stage")
    if stage not in STAGES:
        raise ConfigError(f"stage is {stage!r}; it must be one of {sorted(STAGES)}")
    if not issubclass(STAGES[stage], kind):
        known = sorted(name for name, made in STAGES.items() if issubclass(made, kind))
        raise ConfigError(f"stage is {stage!r}; this command is for {', '.join(known)}")
    parsed = construct("", STAGES[stage], config)
    for key, test, must in RULES:
        try:
            value = _at(parsed, key)
        except AttributeError:
            continue
        if not test(value):
            raise ConfigError(f"{key} is {value!r}; it must be {must}")
    if parsed.data.text != (0, 0) and not isinstance(parsed, Stage2Config):
        raise ConfigError(
            f"data.text is {parsed.data.text}, but stage {stage!r} is told nothing in words; "
            "leave it (0, 0)"
        )
    if isinstance(parsed, TrainConfig) and parsed.batch_size % parsed.accumulate:
        raise ConfigError(
            f"batch_size {parsed.batch_size} is not divisible by accumulate "
            f"{parsed.accumulate}"
        )
    return parsed


def construct(where: str, factory: Callable, section: dict, **given) -> Any:
    """`factory(**section, **given)` with every key, type and number checked first.

    `where` is the section's dotted path, for the message.
    """
    signature = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory)
    # A Linen module's own fields are no settings.
    linen = {"parent", "name"} if "parent" in signature else set()
    allowed = signature.keys() - given.keys() - linen
    dot = f"{where}." if where else ""
    for key in section:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = (
                f"did you mean {dot}{near[0]}?"
                if near
                else f"known are {sorted(allowed)}"
            )
            raise ConfigError(f"unknown key {dot}{key}; {hint}")
    for name in sorted(allowed - section.keys()):
        if signature[name].default is inspect.Parameter.empty:
            raise ConfigError(f"missing key {dot}{name}")
    values = {k: _typed(f"{dot}{k}", hints.get(k, Any), v) for k, v in section.items()}
    return factory(**values, **given)


def _typed(key: str, hint: Any, value: Any) -> Any:
    """`value` as `hint`: lists become tuples, ints floats, dicts their dataclass."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is {value!r}; it must be a section")
        return construct(key, hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise ConfigError(f"{key} is {value!r}; it must have {len(inner)} entries")
        return tuple(_typed(key, inner[0], v) for v in value)
    if origin is types.UnionType:
        if value is None:
            return None
        able = typing.get_args(hint)
        text = isinstance(value, str) and str in able
        several = [h for h in able if typing.get_origin(h) is tuple]
        if several and isinstance(value, list | tuple):
            return _typed(key, several[0], value)
        return _typed(key, str if text else able[0], value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{key} is {value}; it must be a finite number")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool, dict) and isinstance(value, hint):
        return value
    if hint is Any:
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{key} is {value!r}; it must be of type {name}")


def _at(parsed: Any, key: str) -> Any:
    for part in key.split("."):
        parsed = getattr(parsed, part)
    return parsed
