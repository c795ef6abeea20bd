"""Trained models as Python objects: an autoencoder, and a generator on its latents."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.checkpoints import digests
from ul.core import batching
from ul.core.errors import ConfigError
from ul.data.datasets import Datasets
from ul.inference import conditions, rates
from ul.inference.autoguidance import GuidingModel
from ul.inference.conditions import ConditionValues
from ul.metrics.rate_split import RateSplitNats
from ul.stages.codec import Codec, LatentSampler
from ul.stages.stage import Stage


@dataclasses.dataclass(frozen=True, repr=False)
class Autoencoder:
    """The encoder and decoder of a stage-1 run of any kind.

    step: step of the checkpoint. weights: "raw", "ema", "ema:<decay>" or "power:<width>".
    ema_sources: the stored averages that weights were combined from, if they were.
    Images are uint8 [N, *image_shape], for any N.
    """

    stage: Stage
    datasets: Datasets
    params: Any
    mesh: jax.sharding.Mesh
    step: int
    weights: str
    ema_sources: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def codec(self) -> Codec:
        """Encoder and decoder as functions of the parameters."""
        assert self.stage.codec is not None
        return self.stage.codec

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of images, (T, H, W, C) of clips."""
        return self.codec.image_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(h, w, c) of images, (t, h, w, c) of clips."""
        return self.codec.latent_shape

    def identity(self, workdir) -> dict[str, Any]:
        """Return the identity of this autoencoder, which a stage 2 records.

        It is {"workdir", "step", "weights", "encoder": digest of the encoder's parameters}.
        """
        return {
            "workdir": str(epath.Path(workdir).resolve()),
            "step": self.step,
            "weights": self.weights,
            "encoder": digests.fingerprint(self.params["encoder"]),
        }

    def decoder_identity(self) -> dict[str, str]:
        """Return the kind of stage and the digest of the decoder, which a stage 2 records."""
        digest = digests.fingerprint(self.params["decoder"])
        return {"stage": self.stage.name, "decoder": digest}

    def is_recorded(self, recorded: dict[str, Any]) -> bool:
        """Return whether the decoder is the one that a stage 2 recorded with its stage 1."""
        if "decoder" in recorded:
            return self.decoder_identity()["decoder"] == recorded["decoder"]
        return self.stage.separate_decoder is None  # a record of an older version

    def encode(self, images) -> np.ndarray:
        """Encode uint8 [N, H, W, C] to z_clean, float32 [N, h, w, c], without noise.

        Raises:
          DataError: images of another shape or dtype.
        """
        images = conditions.check_array(images, self.image_shape, np.uint8, "images")
        return self.map_rows(
            "", lambda image: self.codec.encode(self.params, image), image=images
        )

    def encode_context(self, frames: np.ndarray) -> np.ndarray:
        """Encode the first frames of clips, uint8 [N, t, H, W, C], as a condition."""
        num_frames = frames.shape[1]
        return self.map_rows(
            "",
            lambda image: self.codec.encode_context(self.params, image, num_frames),
            image=frames,
        )

    def decode(
        self,
        z,
        *,
        noisy: bool = False,
        seed: int = 0,
        first: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Decode latents [N, h, w, c] to uint8 [N, H, W, C] by the whole sampler.

        noisy: False for z_clean, to which the encoder's noise is added first; True for
        z_0, as a generator returns it.
        first: the number of the first row. Image i depends on z[i], `seed` and first + i
        alone, so latents can be decoded in chunks.

        Raises:
          DataError: latents of another shape or dtype.
        """
        z = conditions.check_array(z, self.latent_shape, np.float32, "latents")
        key = seed_key(seed)

        def decode(z, row):
            z_0 = z if noisy else self.codec.add_noise(z, row, key)
            return self.codec.decode(self.params, z_0, row, key)

        return self.map_rows(
            "decode" if progress else "", decode, z=z, row=_rows(len(z), first)
        )

    def reconstruct(
        self, images, *, seed: int = 0, first: int = 0, progress: bool = False
    ) -> np.ndarray:
        """Encode images, add the encoder's noise and decode, uint8 to uint8.

        first: the number of the first row, as in `decode`.

        Raises:
          DataError: images of another shape or dtype.
        """
        images = conditions.check_array(images, self.image_shape, np.uint8, "images")
        key = seed_key(seed)
        return self.map_rows(
            "reconstruct" if progress else "",
            lambda image, row: self.codec.reconstruct(self.params, image, row, key),
            image=images,
            row=_rows(len(images), first),
        )

    def rate(self, images, *, seed: int = 0) -> np.ndarray:
        """Return the bits per pixel of each image, float64 [N], for uint8 [N, H, W, C].

        This is the term of the prior in the loss, from at least 64 noise levels. It is a
        Monte-Carlo estimate, which `seed` determines.

        Raises:
          ConfigError: the prior is no diffusion, or was not loaded.
          DataError: images of another shape or dtype.
        """
        return rates.bits_per_pixel(self._split(images, seed), self._num_pixels)

    def bit_maps(self, images, *, seed: int = 0) -> np.ndarray:
        """Return the bits per pixel at each latent position, [N, h, w], as `rate`.

        The mean over the positions is the rate without the small share of the noisy end.
        """
        return rates.bit_maps(self._split(images, seed), self._num_pixels)

    def _split(self, images, seed: int) -> RateSplitNats:
        images = conditions.check_array(images, self.image_shape, np.uint8, "images")
        if self.stage.joint_diffusion is not None and "prior" not in self.params:
            raise ConfigError(
                "The rate needs the prior, which was not loaded. Pass with_prior=True to "
                "ul.load_autoencoder."
            )
        rows = rates.numbered(images, 0, len(images))
        return rates.split_nats(
            self.stage, self.params, rows, seed_key(seed), self.mesh
        )

    @property
    def _num_pixels(self) -> int:
        return math.prod(self.image_shape[:-1])

    def __repr__(self) -> str:
        return (
            f"Autoencoder(stage={self.stage.name!r}, image_shape={self.image_shape}, "
            f"latent_shape={self.latent_shape}, step={self.step}, weights={self.weights!r})"
        )

    def map_rows(self, title: str, fn, **batch) -> np.ndarray:
        """Apply `fn` to the rows of `batch` in evaluation batches, on the run's mesh.

        title: name of the progress bar; "" shows none.
        """
        return batching.map_rows(
            fn,
            batch,
            batch_size=self.stage.evaluation.batch_size,
            mesh=self.mesh,
            title=title,
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Generator:
    """The base model of a stage-2 run with the autoencoder it was trained on.

    guiding_model: model for autoguidance; None means classifier-free guidance.
    """

    stage: Stage
    datasets: Datasets
    sampler: LatentSampler
    params: Any
    autoencoder: Autoencoder
    step: int
    weights: str
    ema_sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    guiding_model: GuidingModel | None = None

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return self.stage.num_classes

    def __repr__(self) -> str:
        return (
            f"Generator(stage={self.stage.name!r}, step={self.step}, "
            f"weights={self.weights!r}, conditions={tuple(self.stage.conditions.fields)}, "
            f"autoencoder={self.autoencoder!r})"
        )

    def sample_latents(
        self,
        condition: ConditionValues,
        *,
        guidance: float = 1.0,
        seed: int = 0,
        first: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Sample noisy z_0 [N, h, w, c], ready for `decode(noisy=True)`.

        Arguments and errors are those of `sample`.
        """
        validated = conditions.validate_conditions(
            self.stage.conditions, condition, self.autoencoder.encode_context
        )
        count = len(next(iter(validated.values())))
        if not math.isfinite(guidance):
            raise ConfigError(f"guidance must be a finite number; got {guidance}.")
        key, scale = seed_key(seed), float(guidance)
        use_guiding = self.guiding_model is not None and scale != 1.0
        guiding = self.guiding_model.params if use_guiding else None  # type: ignore[union-attr]
        return self.autoencoder.map_rows(
            "latents" if progress else "",
            lambda row, **condition: self.sampler.sample(
                self.params, condition, row, key, scale, guiding
            ),
            row=_rows(count, first),
            **validated,
        )

    def sample(
        self,
        condition: ConditionValues,
        *,
        guidance: float = 1.0,
        seed: int = 0,
        first: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Sample uint8 images [N, H, W, C] from class labels [N] or other conditions.

        `AnyClass(N)` samples any class. A text model takes {"text": [N, L, channels],
        "text_length": [N]}. A model that continues clips takes {"context": first frames,
        uint8 [N, t, H, W, C]} and returns clips [N, T, H, W, C] that begin with them.
        guidance: 1 means no guidance. first: the number of the first row. Image i depends on
        row i, `seed` and first + i alone, so 50,000 samples can be drawn in chunks.

        Raises:
          DataError: a condition is missing or has another shape or dtype.
          ConfigError: guidance or seed is out of range.
        """
        options: dict[str, Any] = dict(seed=seed, first=first, progress=progress)
        z_0 = self.sample_latents(condition, guidance=guidance, **options)
        image = self.autoencoder.decode(z_0, noisy=True, **options)
        if "context" in self.stage.conditions:
            frames = conditions.condition_value(condition, "context")
            image[:, : frames.shape[1]] = frames
        return image


def seed_key(seed: int):
    """Return the root key of an evaluation.

    Raises:
      ConfigError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be in [0, 2^32); got {seed}.")
    return jax.random.key(seed)


def _rows(count: int, first: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.int32)
