"""Sweeps as documents: which trials there are, and what each changes.

    python -m launch.sweep experiments/sweeps/bitrate.py --out runs/bitrate

A point is a dict of overrides; `grid`, `product`, `zipped` and `chain` make lists of
points, `trials` makes trials of them. A key is stage 1's unless it says whose it is:
`loss.weighting.factor`, `stage2:base.depths`, `both:seed`. A file's `get_sweep(arg)`
returns trials.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

Point = dict[str, Any]


def grid(key: str, values: Iterable) -> list[Point]:
    """One key over its values."""
    return [{key: value} for value in values]


def product(*parts: list[Point]) -> list[Point]:
    """Every point of the one with every point of the others; the last varies fastest."""
    points: list[Point] = [{}]
    for part in parts:
        points = [a | b for a in points for b in part]
    return points


def zipped(*parts: list[Point]) -> list[Point]:
    """The first points together, the second ones together: lists of one length."""
    return [
        {k: v for p in points for k, v in p.items()}
        for points in zip(*parts, strict=True)
    ]


def chain(*parts: list) -> list:
    """One list after the other: of points, or of trials."""
    return [element for part in parts for element in part]


def _text(value: Any) -> str:
    """A value in a name: 1.5, 64x128, m3 for -3."""
    if isinstance(value, tuple | list):
        return "x".join(map(_text, value))
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    return re.sub("[^a-z0-9.]+", "-", re.sub("^-(?=[0-9])", "m", text)).strip("-.")


def _name(point: Point, keys: list[str]) -> str:
    """As factor1.5-bias3. `keys`: all of the sweep; what two share does not tell."""
    parts = []
    for key, value in point.items():
        last = re.split("[.:]", key)[-1]
        alike = [k for k in keys if re.split("[.:]", k)[-1] == last]
        what = key if len(alike) > 1 else last
        parts.append(re.sub("[^a-z0-9]+", "-", what.lower()) + _text(value))
    return "-".join(parts)


def trials(
    points: list[Point],
    *,
    stage1: str,
    stage2: str | None = None,
    fixed: Point | None = None,
    follow: Callable[[Point], Point] | None = None,
    name: Callable[[Point], str] | None = None,
    share_stage1: bool = False,
) -> list[dict]:
    """A trial for each point.

    `fixed`: overrides of all; `follow(point)`: overrides that follow from a point (what
    stage 2's latent_shape is follows by itself). `name(point)`: instead of one made of
    keys and values. `share_stage1`: trials whose points differ in stage 2 alone train
    and evaluate one stage 1.
    """
    keys = list(dict.fromkeys(key for point in points for key in point))
    made = []
    for point in points:
        called = name(point) if name else _name(point, keys)
        below = f"{called}/stage1"
        if share_stage1:
            own = {k: v for k, v in point.items() if not k.startswith("stage2:")}
            below = "/".join(filter(None, ("shared", _name(own, keys), "stage1")))
        stages = [{"config": stage1, "workdir": below}]
        if stage2:
            stages.append({"config": stage2, "workdir": f"{called}/stage2"})
        more = (fixed or {}) | (follow(point) if follow else {})
        made.append(
            {"name": called, "overrides": point, "stages": stages, "more": more}
        )
    return made
