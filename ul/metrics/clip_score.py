"""The CLIP score: how well images fit their captions, as text-to-image work reports it.

Two figures of the same cosines are in use:
- `clip_score`: 100 times the mean cosine of image and caption. It is what tables of
  text-to-image models mean by 27 (and torchmetrics' CLIPScore, but for its floor at 0).
- `clipscore`: CLIPScore of Hessel et al., 2021 (arXiv:2104.08718), for captioning: the mean
  of 2.5 max(cosine, 0), of captions that begin with "A photo depicts" (its section 3).
Both depend on the CLIP that is asked: figures of two networks are not to be compared.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.core import batching
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.metrics.extractors import ROWS_A_DEVICE, coloured
from ul.metrics.features import captions, clip, weights
from ul.metrics.frechet import Moments

PREFIX = "A photo depicts "
_image = jax.jit(clip.image_embedding, static_argnames="size")
_text = jax.jit(clip.text_embedding, static_argnames="size")


def cosines(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Of each pair of embeddings [N, d]: float64 [N]."""
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    lengths = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
    return np.sum(image * text, axis=1) / lengths


def clip_score(image: np.ndarray, text: np.ndarray) -> float:
    """100 times the mean cosine of embeddings [N, d] of images and their captions."""
    return float(100.0 * np.mean(cosines(image, text)))


def clipscore(image: np.ndarray, text: np.ndarray) -> float:
    """Hessel et al.'s: the mean of 2.5 max(cosine, 0); `text`: of prefixed captions."""
    return float(2.5 * np.mean(np.maximum(cosines(image, text), 0.0)))


def read(path: epath.PathLike, count: int) -> list[str]:
    """A text file's captions, one a line, of so many images.

    Raises:
      DataError: it cannot be read, has other than `count` lines, or one is empty.
    """
    try:
        text = epath.Path(path).read_bytes().decode()
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e
    # Not splitlines, which also splits at characters that captions may have.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"line {number} of {path} is empty; each is a caption")
    if len(lines) != count:
        raise DataError(f"{path} has {len(lines)} lines for {count} images")
    return lines


@dataclasses.dataclass(frozen=True)
class Clip:
    """Both towers with their weights; the digests are SHA-256."""

    params: Any
    size: clip.Size
    tokens: captions.Tokens
    source: str
    digest: str
    tokenizer: str

    def protocol(self) -> dict[str, Any]:
        """What a figure needs said of the network behind it."""
        return {
            "model": str(self.size),
            "source": self.source,
            "sha256": self.digest,
            "tokenizer_sha256": self.tokenizer,
            "resize": f"PIL's bicubic of 8 bits, shorter side to {self.size.side}, "
            "the middle square",
            "context": self.size.context,
        }


def load(weights_dir: epath.PathLike) -> Clip:
    """CLIP from a folder that `launch.convert clip` wrote.

    Raises:
      Missing: a file is not there.
      DataError: a file is damaged or is not that of the manifest.
      ConfigError: the package `tokenizers` is not installed.
    """
    params, size = clip.load(weights_dir)
    content = weights.companion(weights_dir, clip.network(size), captions.FILE)
    entry = weights.manifest(weights_dir)[clip.FILE]
    return Clip(
        params=params,
        size=size,
        tokens=captions.Tokens(content, size.context),
        source=entry.get("source", "unknown"),
        digest=entry["sha256"],
        tokenizer=hashlib.sha256(content).hexdigest(),
    )


class ClipScore:
    """The score of images and captions that come in parts; neither are kept."""

    def __init__(self, network: Clip, on: jax.sharding.Mesh):
        self._network, self._mesh = network, on
        self._params = jax.device_put(network.params, meshes.replicated(on))
        self._seen = Moments.empty(2)

    @property
    def count(self) -> int:
        """Pairs so far."""
        return self._seen.count

    def images(self, image: np.ndarray) -> np.ndarray:
        """Unit embeddings [N, d] of uint8 [N, H, W, C]."""
        return self._rows(_image, coloured(image))

    def texts(self, text: Sequence[str]) -> np.ndarray:
        """Unit embeddings [N, d]."""
        return self._rows(_text, self._network.tokens(text))

    def _rows(self, embed: Any, rows: np.ndarray) -> np.ndarray:
        return batching.map_rows(
            lambda rows: embed(self._params, rows, size=self._network.size),
            {"rows": rows},
            batch_size=ROWS_A_DEVICE * self._mesh.size,
            on=self._mesh,
        )

    def add(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """The next pairs: uint8 [N, H, W, C], and a caption each.

        Raises:
          DataError: there are not as many of one as of the other, or an embedding is not
            finite.
        """
        if len(images) != len(captions):
            raise DataError(f"{len(images)} images and {len(captions)} captions")
        if not len(images):
            return
        seen = self.images(images)
        plain = cosines(seen, self.texts(captions))
        prefixed = cosines(seen, self.texts([PREFIX + text for text in captions]))
        part = np.stack([100.0 * plain, 2.5 * np.maximum(prefixed, 0.0)], axis=1)
        if not np.all(np.isfinite(part)):
            raise DataError(f"CLIP's embeddings of pairs {self.count}.. are not finite")
        self._seen = self._seen.merge(Moments.of(part))

    def value(self) -> float:
        """100 times the mean cosine.

        Raises:
          DataError: fewer than two pairs were seen.
        """
        return self.record()["clip_score"]

    def record(self) -> dict[str, float]:
        """Both figures with their standard errors (of the mean over pairs).

        Raises:
          DataError: fewer than two pairs were seen.
        """
        if self.count < 2:
            raise DataError(f"a CLIP score needs 2 pairs or more, not {self.count}")
        mean, covariance = self._seen.gaussian()
        sem = np.sqrt(np.diagonal(covariance) / self.count)
        return {
            "clip_score": float(mean[0]),
            "clip_score_sem": float(sem[0]),
            "clipscore": float(mean[1]),
            "clipscore_sem": float(sem[1]),
        }

    def protocol(self) -> dict[str, Any]:
        """What the figures need said: network, digests, count and what they are."""
        return self._network.protocol() | {
            "count": self.count,
            "clip_score": "100 mean cosine",
            "clipscore": f"2.5 mean max(cosine, 0), captions after {PREFIX!r}",
        }
