"""The examples of a config's splits: by index, in batches, or some of them at once."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ul.config import RunConfig
from ul.config.registry import of_kind
from ul.core.errors import DataError
from ul.data import pipeline
from ul.data.sources import registry


def dataset(config: RunConfig, split: str):
    """Examples of one split by global index; eval ones never flip and never change."""
    training = split == "train"
    if training and config.data.augment == "example":
        return pipeline.endless(fixed(config, split), config.seed)
    return _examples(
        config,
        split,
        flip=config.data.flip and training,
        seed=config.seed if training else 0,
        shuffle=training,
    )


def plain_train(config: RunConfig):
    """The training examples once, in order, without augmentation: a reference."""
    return _examples(config, "train", flip=False, seed=0, shuffle=False)


def fixed(config: RunConfig, split: str):
    """Examples that are the same whenever they come, in order: what a cache holds.

    One crop of an image; with data.flip a training image comes both ways.
    """
    if split == "eval":
        return dataset(config, "eval")
    once = plain_train(config)
    return pipeline.both_ways(once) if config.data.flip else once


def collect(
    config: RunConfig, split: str, limit: int, progress_title: str = ""
) -> dict[str, np.ndarray]:
    """The first images and labels of a split in order, without augmentation.

    With a `progress_title`, a bar shows rate and time left.
    """
    one_pass = dataset(config, "eval") if split == "eval" else plain_train(config)
    return read(one_pass, range(min(limit, len(one_pass))), progress_title)


def spread(total: int, limit: int) -> np.ndarray:
    """Positions of at most `limit` of `total` examples, ascending: all, or a random
    choice that never changes. A folder lies in the order of its classes: the first ones
    would be of few."""
    if total <= limit:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, limit, replace=False))


def parts(
    config: RunConfig, examples, indices, title: str
) -> Iterator[dict[str, np.ndarray]]:
    """Images and labels of these examples in order, under a bar: a few hundred MiB at a
    time, and whole batches of the config's `eval.batch_size`."""
    size = rows_at_once(config.data.image_shape, config.eval.batch_size)
    bar = tqdm(total=len(indices), unit="image", desc=title, dynamic_ncols=True)
    found = pipeline.in_order(
        examples, indices, batch_size=size, threads=config.data.threads
    )
    with bar:
        for part in found:
            yield part
            bar.update(len(part["label"]))


def rows_at_once(shape: Sequence[int], batch_size: int) -> int:
    """How many images of that shape an evaluation holds: whole batches, about 1,024
    images and not much more than 256 MiB."""
    rows = max(1, min(1024, 2**28 // int(np.prod(shape))))
    return -(-rows // batch_size) * batch_size


def read(
    examples, indices: Sequence[int], progress_title: str = ""
) -> dict[str, np.ndarray]:
    """Images and labels of these examples; with a `progress_title`, under a bar."""
    bar = tqdm(
        indices,
        unit="image",
        desc=progress_title,
        disable=not progress_title,
        dynamic_ncols=True,
    )
    found = [examples[int(i)] for i in bar]
    return {
        "image": np.stack([f["image"] for f in found]),
        "label": np.asarray([f["label"] for f in found], np.int32),
    }


def _examples(config: RunConfig, split: str, **how):
    made = source(config, split)
    return pipeline.examples(made, shape=config.data.image_shape, **how)


def source(config: RunConfig, split: str):
    """Images of a split as they lie there, often larger than wanted.

    Raises:
      DataError: more classes than the config says, or other text.
    """
    data = config.data
    found = of_kind(
        "data.source",
        registry.SOURCES,
        data.source,
        split=split,
        shape=data.image_shape,
    )
    if found.num_classes > data.num_classes:
        raise DataError(
            f"the data have {found.num_classes} classes, but data.num_classes is "
            f"{data.num_classes}; set it to {found.num_classes}"
        )
    told = getattr(found, "text_shape", (0, 0))
    if data.text not in ((0, 0), told):
        raise DataError(
            f"data.text is {data.text}, (tokens, channels), but the data have {told}; set "
            "it to that"
        )
    return found if data.text == told else registry.without_text(found)


def untold(config: Any) -> Any:
    """The same, told nothing in words: what its latents depend on."""
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, text=(0, 0))
    )


def eval_batches(config: RunConfig, examples, count: int):
    """The first `count` held-out `examples` as batches, in order."""
    return pipeline.eval_batches(
        examples, batch_size=config.eval.batch_size, num_examples=count
    )
