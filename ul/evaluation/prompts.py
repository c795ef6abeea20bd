"""What an evaluation's samples are asked to be, a part at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ul.data import datasets
from ul.evaluation import request as requests
from ul.evaluation.request import Request
from ul.inference import api
from ul.stages import registry

# part(first, last) -> rows first .. last - 1 of every entry, for `Generator.sample`.
Asked = Callable[[int, int], dict[str, np.ndarray]]


def asked(request: Request, gen: api.Generator, count: int) -> tuple[Asked, str]:
    """Of `count` samples, and what a protocol says of it.

    Labels alone go round or are drawn. Anything more is that of the held-out examples, in
    their order and round again; with it comes all of each example.
    """
    if registry.conditions(gen.config).keys() == {"label"}:
        label = requests.label_of(request, count, gen.num_classes)
        said = requests.label_protocol(request)
        return lambda first, last: {"label": label[first:last]}, said
    examples = datasets.dataset(gen.config, "eval")
    said = f"of the {len(examples)} held-out examples, i mod {len(examples)}"
    return lambda first, last: _held_out(gen, examples, range(first, last)), said


def continuing(gen: api.Generator, count: int) -> dict[str, np.ndarray]:
    """The first held-out clips, round again, with their given frames."""
    return _held_out(gen, datasets.dataset(gen.config, "eval"), range(count))


def _held_out(gen: api.Generator, examples, rows: range) -> dict[str, Any]:
    """All of these examples; of clips what is given, too."""
    found = [examples[i % len(examples)] for i in rows]
    whole = {name: np.stack([f[name] for f in found]) for name in found[0]}
    if few := getattr(gen.config, "context_frames", 0):
        whole["context"] = whole["image"][:, :few]
    return whole


def in_words(gen: api.Generator) -> bool:
    """The model is told in words what to draw."""
    return "text" in registry.conditions(gen.config)


def captions(gen: api.Generator, first: int, last: int) -> list[str]:
    """What samples first .. last - 1 of a model that is told in words are asked for."""
    source = datasets.source(gen.config, "eval")
    return [source.caption(i % len(source)) for i in range(first, last)]
