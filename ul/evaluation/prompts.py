"""The conditions of an evaluation's samples, in batches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ul.evaluation import request as requests
from ul.evaluation.request import Request
from ul.inference import api

# conditions(first, last) -> rows first .. last - 1 of every entry, for `Generator.sample`.
ConditionBatches = Callable[[int, int], dict[str, np.ndarray]]


def sample_conditions(
    request: Request, gen: api.Generator, count: int
) -> tuple[ConditionBatches, str]:
    """Return the conditions of `count` samples, and how they were chosen, for the protocol.

    A model conditioned on labels alone gets them in turn or at random. Any other model gets
    the conditions of the held-out examples, in their order and repeated, together with
    every other entry of each example.
    """
    if gen.stage.conditions.names == ("label",):
        label = requests.sample_labels(request, count, gen.num_classes)
        protocol = requests.label_protocol(request)
        return lambda first, last: {"label": label[first:last]}, protocol
    examples = gen.datasets.eval
    protocol = f"of the {len(examples)} held-out examples, i mod {len(examples)}"
    return lambda first, last: _held_out(gen, examples, range(first, last)), protocol


def held_out_conditions(gen: api.Generator, count: int) -> dict[str, np.ndarray]:
    """Return every entry of the first held-out examples, repeated: all conditions."""
    return _held_out(gen, gen.datasets.eval, range(count))


def _held_out(gen: api.Generator, examples, rows: range) -> dict[str, Any]:
    """Every entry of these examples; of clips also their context frames."""
    chosen = [examples[i % len(examples)] for i in rows]
    batch = {name: np.stack([e[name] for e in chosen]) for name in chosen[0]}
    if num_frames := gen.stage.conditions.context_frames:
        batch["context"] = batch["image"][:, :num_frames]
    return batch


def has_text(gen: api.Generator) -> bool:
    """Whether the model is conditioned on text."""
    return "text" in gen.stage.conditions


def captions(gen: api.Generator, first: int, last: int) -> list[str]:
    """Return the captions of samples first .. last - 1 of a model conditioned on text."""
    source = gen.datasets.source("eval")
    return [source.caption(i % len(source)) for i in range(first, last)]
