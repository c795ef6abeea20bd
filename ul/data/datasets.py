"""The training and evaluation examples of a config: by index, in batches or as arrays."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ul.config import Kinds, RunConfig
from ul.config.schema import DataConfig
from ul.core.errors import DataError
from ul.data import pipeline
from ul.data.sources import captioned, registry
from ul.data.sources.base import SkipUnreadable

SPLITS = ("train", "eval")


@dataclasses.dataclass(frozen=True)
class Datasets:
    """Examples of both splits, opened when they are first used.

    data: the section of the config. seed: seed of the training order and augmentation.
    batch_size: size of evaluation batches.
    """

    data: DataConfig
    seed: int
    batch_size: int

    @classmethod
    def from_config(cls, config: RunConfig) -> "Datasets":
        """Return the datasets of a config; nothing is read yet."""
        return cls(config.data, config.seed, config.eval.batch_size)

    @property
    def source_kind(self) -> str:
        """The `kind` of the data source."""
        return self.data.source["kind"]

    @functools.cached_property
    def train(self):
        """Training examples by global index: shuffled, augmented and endless.

        An example has `image`, uint8 [*image_shape], `label`, and with captions `text` and
        `text_length`.
        """
        if self.data.augment == "example":
            return pipeline.shuffled_dataset(self.fixed("train"), self.seed)
        return self._examples(
            "train", flip=self.data.flip, seed=self.seed, shuffle=True
        )

    @functools.cached_property
    def eval(self):
        """Held-out examples in order, each once, without augmentation.

        They have the keys of training examples.
        """
        return self._examples("eval", flip=False, seed=0, shuffle=False)

    @functools.cached_property
    def unaugmented_train(self):
        """Training examples in order, each once, without augmentation."""
        return self._examples("train", flip=False, seed=0, shuffle=False)

    def ordered(self, split: str):
        """Return the examples of a split in order, each once, without augmentation."""
        return self.eval if split == "eval" else self.unaugmented_train

    def fixed(self, split: str):
        """Return the fixed examples of a split, which a latent cache holds.

        Each image has one crop; with `flip`, training images are followed by their mirror
        images.
        """
        examples = self.ordered(split)
        if split == "train" and self.data.flip:
            return pipeline.append_mirrored(examples)
        return examples

    def collect(
        self, split: str, limit: int, progress_title: str = ""
    ) -> dict[str, np.ndarray]:
        """Read the first images and labels of a split, in order, without augmentation.

        A progress bar is shown if it has a title.
        """
        examples = self.ordered(split)
        return read(examples, range(min(limit, len(examples))), progress_title)

    def chunks(
        self, examples, indices: Sequence[int] | np.ndarray, title: str
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield images and labels of these examples in order, with a progress bar.

        A chunk has a few hundred MiB at most, and whole evaluation batches.
        """
        rows = chunk_rows(self.data.image_shape, self.batch_size)
        chunks = pipeline.batches_at(
            examples, indices, batch_size=rows, threads=self.data.threads
        )
        bar = tqdm(total=len(indices), unit="image", desc=title, dynamic_ncols=True)
        with bar:
            for chunk in chunks:
                yield chunk
                bar.update(len(chunk["label"]))

    def eval_batches(self, examples, count: int):
        """Return the first `count` held-out `examples` as batches, in order."""
        return pipeline.eval_batches(
            examples, batch_size=self.batch_size, num_examples=count
        )

    def source(self, split: str):
        """Return the source of a split; its images may be larger than `image_shape`.

        Raises:
          DataError: more classes than the config says, or text of another shape.
        """
        if split not in self._opened:
            self._opened[split] = self._open(split)
        return self._opened[split]

    @functools.cached_property
    def _opened(self) -> dict[str, Any]:
        """The sources that are open, by split."""
        return {}

    def _open(self, split: str):
        data = self.data
        kinds = Kinds(registry.SOURCES, ("split", "shape"))
        source = kinds.build(
            "data.source", data.source, split=split, shape=data.image_shape
        )
        if source.num_classes > data.num_classes:
            raise DataError(
                f"data.num_classes must be at least {source.num_classes}, the number of "
                f"classes in the data; got {data.num_classes}. Pass "
                f"--config.data.num_classes={source.num_classes}."
            )
        text_shape = getattr(source, "text_shape", (0, 0))
        if data.text not in ((0, 0), text_shape):
            raise DataError(
                "data.text must be the (tokens, channels) of the data's text embeddings, "
                f"{text_shape}; got {data.text}."
            )
        return source if data.text == text_shape else captioned.without_captions(source)

    def verified_held_out(self, count: int):
        """Return `eval`, after reading the first `count` files if they may be broken.

        Raises:
          DataError: too many files are broken.
        """
        source = self.source("eval")
        if isinstance(source, SkipUnreadable):
            source.verify(min(count, len(source)), self.data.threads)
        return self.eval

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what the sources that are open have found, by split, as config.json keeps it.

        That is the number of examples, the number of each class by name, the number of
        skipped files by reason, and the digest of the list of files.
        """
        return {
            split: {"examples": len(source), **dataclasses.asdict(source.report)}
            for split, source in sorted(self._opened.items(), reverse=True)
        }

    def without_text(self) -> "Datasets":
        """Return the same datasets without text, as a latent cache depends on them."""
        return dataclasses.replace(
            self, data=dataclasses.replace(self.data, text=(0, 0))
        )

    def _examples(self, split: str, **settings: Any):
        source = self.source(split)
        return pipeline.make_dataset(source, shape=self.data.image_shape, **settings)


def fixed_subset(total: int, limit: int) -> np.ndarray:
    """Return at most `limit` positions below `total`, ascending.

    They are all of them, or a random subset that is always the same: a folder is in the
    order of its classes, so the first ones would show few classes.
    """
    if total <= limit:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, limit, replace=False))


def chunk_rows(shape: Sequence[int], batch_size: int) -> int:
    """Return how many images of that shape an evaluation holds at a time.

    They are whole batches, about 1,024 images and not much more than 256 MiB.
    """
    rows = max(1, min(1024, 2**28 // int(np.prod(shape))))
    return -(-rows // batch_size) * batch_size


def read(
    examples, indices: Sequence[int], progress_title: str = ""
) -> dict[str, np.ndarray]:
    """Read images and labels of these examples; a progress bar is shown if it has a title."""
    bar = tqdm(
        indices,
        unit="image",
        desc=progress_title,
        disable=not progress_title,
        dynamic_ncols=True,
    )
    items = [examples[int(i)] for i in bar]
    return {
        "image": np.stack([item["image"] for item in items]),
        "label": np.asarray([item["label"] for item in items], np.int32),
    }
