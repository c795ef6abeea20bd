"""Sweeps: files that list the trials to run and what each of them changes.

    python -m ul sweep bitrate --out runs/bitrate

A file has a function `get_sweep(arg)` that returns trials; `FILE:ARG` on the command line
passes the argument. A point is a dict of overrides, such as {"loss.weighting.factor": 2.0}.
`grid`, `product`, `zipped` and `chain` return lists of points, and `trials` turns points
into trials. A key changes stage 1, unless a prefix says otherwise: `stage2:base.depths`
changes stage 2, `both:seed` changes both stages.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

Point = dict[str, Any]


def grid(key: str, values: Iterable) -> list[Point]:
    """Return one point per value of a key."""
    return [{key: value} for value in values]


def product(*lists: list[Point]) -> list[Point]:
    """Return all combinations of one point from each list; the last list varies fastest."""
    points: list[Point] = [{}]
    for other in lists:
        points = [a | b for a in points for b in other]
    return points


def zipped(*lists: list[Point]) -> list[Point]:
    """Merge the i-th points of all lists, for every i.

    Raises:
      ValueError: the lists have different lengths.
    """
    return [
        {key: value for point in points for key, value in point.items()}
        for points in zip(*lists, strict=True)
    ]


def chain(*lists: list) -> list:
    """Return the concatenation of lists of points or of trials."""
    return [element for elements in lists for element in elements]


def _value_text(value: Any) -> str:
    """Return a value as it stands in a trial's name: 1.5, 64x128, or m3 for -3."""
    if isinstance(value, tuple | list):
        return "x".join(map(_value_text, value))
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    return re.sub("[^a-z0-9.]+", "-", re.sub("^-(?=[0-9])", "m", text)).strip("-.")


def _point_name(point: Point, keys: list[str]) -> str:
    """Return the name of a point, such as factor1.5-bias3.

    keys: all keys of the sweep. A key is written in full if another one ends alike.
    """
    words = []
    for key, value in point.items():
        last = re.split("[.:]", key)[-1]
        is_ambiguous = sum(re.split("[.:]", k)[-1] == last for k in keys) > 1
        label = key if is_ambiguous else last
        words.append(re.sub("[^a-z0-9]+", "-", label.lower()) + _value_text(value))
    return "-".join(words)


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
    """Return one trial per point: its name, overrides, configs and workdirs.

    stage1, stage2: configs, such as "photos:stage1_16"; without `stage2` a
    trial ends after stage 1.
    fixed: overrides of all trials. follow: returns further overrides that depend on a point.
    `latent_shape` of stage 2 needs neither, because it is derived from stage 1.
    name: returns the name of a trial; by default it is made of the point's keys and values.
    share_stage1: trials whose points differ only in stage 2 train one stage 1 together.
    """
    keys = list(dict.fromkeys(key for point in points for key in point))
    descriptions = []
    for point in points:
        trial_name = name(point) if name else _point_name(point, keys)
        stage1_workdir = f"{trial_name}/stage1"
        if share_stage1:
            stage1_point = {
                k: v for k, v in point.items() if not k.startswith("stage2:")
            }
            stage1_name = _point_name(stage1_point, keys)
            stage1_workdir = "/".join(filter(None, ("shared", stage1_name, "stage1")))
        stages = [{"config": stage1, "workdir": stage1_workdir}]
        if stage2:
            stages.append({"config": stage2, "workdir": f"{trial_name}/stage2"})
        more = (fixed or {}) | (follow(point) if follow else {})
        descriptions.append(
            {"name": trial_name, "overrides": point, "stages": stages, "more": more}
        )
    return descriptions
