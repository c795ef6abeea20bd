"""The CLIP score: the agreement of images with their captions, for text-to-image models.

Two values from the same cosine similarities are in use:
- `clip_score`: 100 times the mean cosine of image and caption. A value such as 27 in a
  table of text-to-image models means this one (torchmetrics' CLIPScore adds a floor at 0).
- `clipscore`: CLIPScore of Hessel et al., 2021 (arXiv:2104.08718), for captioning: the mean
  of 2.5 max(cosine, 0), of captions that begin with "A photo depicts" (its section 3).
Both depend on the CLIP network: values of different networks are not comparable.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.core import batching, text_files
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.metrics.extractors import ROWS_PER_DEVICE, to_rgb
from ul.metrics.features import captions as clip_captions
from ul.metrics.features import clip, weights
from ul.metrics.frechet import FeatureMoments

PREFIX = "A photo depicts "
_embed_images = jax.jit(clip.embed_images, static_argnames="sizes")
_embed_tokens = jax.jit(clip.embed_tokens, static_argnames="sizes")


def cosine_similarity(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Return the float64 cosine [N] of each pair of embeddings [N, d]."""
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    lengths = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
    return np.sum(image * text, axis=1) / lengths


def clip_score(image: np.ndarray, text: np.ndarray) -> float:
    """Return 100 times the mean cosine of embeddings [N, d] of images and captions."""
    return float(100.0 * np.mean(cosine_similarity(image, text)))


def clipscore(image: np.ndarray, text: np.ndarray) -> float:
    """Return the mean of 2.5 max(cosine, 0), as Hessel et al. define CLIPScore.

    `text` are embeddings [N, d] of captions that begin with PREFIX.
    """
    return float(2.5 * np.mean(np.maximum(cosine_similarity(image, text), 0.0)))


def read_captions(path: epath.PathLike, count: int) -> list[str]:
    """Read the captions of `count` images from a text file with one caption per line.

    Raises:
      DataError: the file cannot be read, has another number of lines, or an empty line.
    """
    # Not splitlines, which also splits at characters that captions may contain.
    lines = text_files.read(path, str(path)).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(
                f"{path} must have a caption on every line, but line {number} is empty."
            )
    if len(lines) != count:
        raise DataError(
            f"{path} must have one line per image; it has {len(lines)} lines for "
            f"{count} images."
        )
    return lines


@dataclasses.dataclass(frozen=True)
class ClipNetwork:
    """Both towers of CLIP with their weights and tokenizer, and the SHA-256 of each."""

    params: Any
    sizes: clip.ClipSizes
    tokenizer: clip_captions.ClipTokenizer
    source: str
    weights_sha256: str
    tokenizer_sha256: str

    def protocol(self) -> dict[str, Any]:
        """Return what a reported score must state about the network."""
        return {
            "model": str(self.sizes),
            "source": self.source,
            "sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "resize": f"PIL's bicubic of 8 bits, shorter side to {self.sizes.side}, "
            "the middle square",
            "context": self.sizes.context,
        }


def load_network(weights_dir: epath.PathLike) -> ClipNetwork:
    """Load CLIP from a folder that `ul convert clip` wrote.

    Raises:
      MissingWeights: a file is missing.
      DataError: a file is damaged or differs from its entry in the manifest.
      ConfigError: the package `tokenizers` is not installed.
    """
    params, sizes = clip.load(weights_dir)
    content = weights.read_companion(
        weights_dir, clip.NAME, clip_captions.TOKENIZER_FILE
    )
    entry = weights.read_manifest(weights_dir)[clip.FILE]
    return ClipNetwork(
        params=params,
        sizes=sizes,
        tokenizer=clip_captions.ClipTokenizer(content, sizes.context),
        source=entry.get("source", "unknown"),
        weights_sha256=entry["sha256"],
        tokenizer_sha256=hashlib.sha256(content).hexdigest(),
    )


class ClipScore:
    """The CLIP score of images and captions that arrive in chunks and are not kept."""

    def __init__(self, network: ClipNetwork, mesh: jax.sharding.Mesh):
        self._network, self._mesh = network, mesh
        self._params = jax.device_put(network.params, meshes.replicated(mesh))
        self._moments = FeatureMoments.empty(2)

    @property
    def count(self) -> int:
        """Number of pairs so far."""
        return self._moments.count

    def embed_images(self, image: np.ndarray) -> np.ndarray:
        """Return unit embeddings [N, d] of uint8 images [N, H, W, C]."""
        return self._map_rows(_embed_images, to_rgb(image))

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """Return unit embeddings [N, d] of captions."""
        return self._map_rows(_embed_tokens, self._network.tokenizer(captions))

    def _map_rows(self, embed: Callable, rows: np.ndarray) -> np.ndarray:
        return batching.map_rows(
            lambda rows: embed(self._params, rows, sizes=self._network.sizes),
            {"rows": rows},
            batch_size=ROWS_PER_DEVICE * self._mesh.size,
            mesh=self._mesh,
        )

    def add(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """Add the next uint8 images [N, H, W, C] with one caption each.

        Raises:
          DataError: the numbers of images and captions differ, or an embedding is not
            finite.
        """
        if len(images) != len(captions):
            raise DataError(
                "A CLIP score needs one caption per image; got "
                f"{len(images)} images and {len(captions)} captions."
            )
        if not len(images):
            return
        embedded = self.embed_images(images)
        cosine = cosine_similarity(embedded, self.embed_captions(captions))
        prefixed = self.embed_captions([PREFIX + text for text in captions])
        floored = np.maximum(cosine_similarity(embedded, prefixed), 0.0)
        scores = np.stack([100.0 * cosine, 2.5 * floored], axis=1)
        if not np.all(np.isfinite(scores)):
            raise DataError(
                "CLIP's embeddings must be finite, but in the batch that begins at pair "
                f"{self.count} some are not. Check the weights."
            )
        self._moments = self._moments.merge(FeatureMoments.from_features(scores))

    def value(self) -> float:
        """Return 100 times the mean cosine.

        Raises:
          DataError: there are fewer than two pairs.
        """
        return self.record()["clip_score"]

    def record(self) -> dict[str, float]:
        """Return both values with their standard errors (of the mean over pairs).

        Raises:
          DataError: there are fewer than two pairs.
        """
        if self.count < 2:
            raise DataError(f"A CLIP score needs at least 2 pairs; got {self.count}.")
        mean, covariance = self._moments.gaussian()
        sem = np.sqrt(np.diagonal(covariance) / self.count)
        return {
            "clip_score": float(mean[0]),
            "clip_score_sem": float(sem[0]),
            "clipscore": float(mean[1]),
            "clipscore_sem": float(sem[1]),
        }

    def protocol(self) -> dict[str, Any]:
        """Return what a reported score must state: network, count and definitions."""
        return self._network.protocol() | {
            "count": self.count,
            "clip_score": "100 mean cosine",
            "clipscore": f"2.5 mean max(cosine, 0), captions after {PREFIX!r}",
        }
