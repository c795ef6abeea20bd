"""Shared parts of sources of images with captions.

A model receives a caption as `text`, float16 [tokens, channels]: one vector per token,
then zeros, and `text_length`, the number of tokens.
"""

from collections.abc import Sequence

import numpy as np

from ul.data.sources.base import Example, FunctionSource, SourceReport

TEXT_DTYPE = np.dtype("<f2")


class CaptionedSource:
    """Base of the sources whose examples are images with a label and a caption.

    Subclasses implement `__len__`, `caption`, `text_condition` and `labeled_image`.
    """

    num_classes: int
    text_shape: tuple[int, int]  # tokens, channels
    report = SourceReport()

    def __len__(self) -> int:
        raise NotImplementedError

    def caption(self, i: int) -> str:
        """Return the caption of image i, "" if it has none."""
        raise NotImplementedError

    def text_condition(self, i: int) -> Example:
        """Return the embedded caption of image i: `text` and `text_length`."""
        raise NotImplementedError

    def labeled_image(self, i: int) -> Example:
        """Return image i and its label without reading its caption."""
        raise NotImplementedError

    def __getitem__(self, i) -> Example:
        return self.labeled_image(int(i)) | self.text_condition(int(i))


class CaptionedLatents:
    """Cached latents joined with the captions of the images that were encoded.

    `latents` may hold several versions of an image, one after the other: example i belongs
    to image i modulo the number of images.
    """

    def __init__(self, latents: Sequence[Example], source: CaptionedSource):
        self._latents, self._source = latents, source

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, i) -> Example:
        i = int(i)
        return self._latents[i] | self._source.text_condition(i % len(self._source))


def without_captions(source: CaptionedSource) -> FunctionSource:
    """Return the images and labels of a source with captions."""
    return FunctionSource(
        len(source), source.labeled_image, source.num_classes, source.report
    )


def pad_text(vectors: np.ndarray, text_shape: tuple[int, int]) -> Example:
    """Return `text`, the vectors padded with zeros to `text_shape`, and `text_length`."""
    text = np.zeros(text_shape, TEXT_DTYPE)
    text[: len(vectors)] = vectors
    return {"text": text, "text_length": np.int32(len(vectors))}
