"""Trained models as Python objects: what `import ul` offers."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.checkpoints import store
from ul.core import batching
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.data.datasets import Datasets
from ul.inference import autoguidance, conditions
from ul.inference import weights as saved_weights
from ul.inference.conditions import ConditionValues
from ul.inference.weights import SavedRun
from ul.stages import registry
from ul.stages.codec import Codec, LatentSampler
from ul.stages.stage import Stage

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The encoder and decoder of a stage-1 run of any kind.

    step: of the checkpoint. weights: "raw", "ema", "ema:<decay>" or "power:<width>".
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
        """Return what a stage 2 records: the workdir, and a digest of the encoder."""
        return {
            "workdir": str(epath.Path(workdir).resolve()),
            "step": self.step,
            "weights": self.weights,
            "encoder": store.fingerprint(self.params["encoder"]),
        }

    def encode(self, images) -> np.ndarray:
        """Encode uint8 [N, H, W, C] to z_clean, float32 [N, h, w, c], without noise.

        Raises:
          DataError: images of another shape or dtype.
        """
        images = conditions.check_array(images, self.image_shape, np.uint8, "images")
        return self._map(
            "", lambda image: self.codec.encode(self.params, image), image=images
        )

    def encode_context(self, frames: np.ndarray) -> np.ndarray:
        """Encode the first frames of clips, uint8 [N, t, H, W, C], as a condition."""
        num_frames = frames.shape[1]
        return self._map(
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

        return self._map(
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
        return self._map(
            "reconstruct" if progress else "",
            lambda image, row: self.codec.reconstruct(self.params, image, row, key),
            image=images,
            row=_rows(len(images), first),
        )

    def _map(self, title: str, fn, **batch) -> np.ndarray:
        return batching.map_rows(
            fn,
            batch,
            batch_size=self.stage.evaluation.batch_size,
            mesh=self.mesh,
            title=title,
        )


@dataclasses.dataclass(frozen=True)
class Generator:
    """The base model of a stage-2 run with the autoencoder it was trained on.

    guiding_model: of autoguidance; None is classifier-free guidance.
    """

    stage: Stage
    datasets: Datasets
    sampler: LatentSampler
    params: Any
    autoencoder: Autoencoder
    step: int
    weights: str
    ema_sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    guiding_model: autoguidance.GuidingModel | None = None

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1; num_classes itself means any class."""
        return self.stage.num_classes

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
        return self.autoencoder._map(
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

        A text model takes {"text": [N, L, channels], "text_length": [N]}. A model that
        continues clips takes {"context": first frames, uint8 [N, t, H, W, C]} and returns
        clips [N, T, H, W, C] that begin with them.
        guidance: 1 is none. first: the number of the first row. Image i depends on row i,
        `seed` and first + i alone, so 50,000 samples can be drawn in chunks.

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


def load_autoencoder(
    workdir, *, step: int | None = None, weights: str = "ema"
) -> Autoencoder:
    """Load encoder and decoder of the stage-1 run in `workdir`, on all local devices.

    The architecture comes from the run's config.json, the weights from a verified
    checkpoint: `step`, or the newest. A directory of launch.export works too.

    Raises:
      ConfigError: there is no stage-1 run, or it has no such weights.
      CheckpointError: there is no verified checkpoint, or it is damaged.
      DataError: files of an export are damaged.
    """
    return restore_stage1(workdir, ("encoder", "decoder"), step=step, weights=weights)


def restore_stage1(
    workdir,
    networks: Sequence[str],
    *,
    step: int | None,
    weights: str,
    mesh: jax.sharding.Mesh | None = None,
) -> Autoencoder:
    """Restore the named networks of a stage-1 run, such as "prior" besides the others.

    Raises as `load_autoencoder`.
    """
    run = saved_weights.load_run(workdir, registry.AutoencoderConfig)
    chosen = saved_weights.choose(run, step, weights)
    shapes = jax.eval_shape(lambda: run.stage.init(jax.random.key(0)))
    requested = {name: shapes[name] for name in networks if name in shapes}
    mesh = mesh or meshes.make()
    params = saved_weights.restore(chosen, requested, mesh)
    return _autoencoder(run, params, mesh, chosen)


def _autoencoder(
    run: SavedRun, params, mesh: jax.sharding.Mesh, chosen: saved_weights.Weights
) -> Autoencoder:
    return Autoencoder(
        run.stage,
        run.datasets,
        params,
        mesh,
        chosen.step,
        chosen.name,
        chosen.ema_sources,
    )


def restore_frozen_stage1(
    workdir: str | None,
    stage2: Stage,
    networks: Sequence[str],
    *,
    step: int | None,
    weights: str,
    mesh: jax.sharding.Mesh,
) -> tuple[Autoencoder, dict[str, Any]]:
    """Restore the stage 1 that a stage 2 is trained on; also return its identity.

    Raises:
      ConfigError: no stage 1 is given, or it does not fit.
      CheckpointError: there is no such checkpoint.
    """
    if not workdir:
        raise ConfigError(
            "stage1.workdir is required for a stage 2, but it is not set. Pass "
            "--config.stage1.workdir=DIRECTORY, the workdir of its stage 1."
        )
    stage1 = saved_weights.load_run(workdir, registry.AutoencoderConfig).stage
    registry.check_stage1(stage2, stage1, workdir)
    autoencoder = restore_stage1(
        workdir, networks, step=step, weights=weights, mesh=mesh
    )
    log.info(
        "stage 1: %s step %d, weights %s",
        workdir,
        autoencoder.step,
        autoencoder.weights,
    )
    return autoencoder, autoencoder.identity(workdir)


def load_generator(
    workdir,
    *,
    step: int | None = None,
    weights: str = "ema",
    stage1_workdir: str | None = None,
    guiding_model: str | None = None,
) -> Generator:
    """Load the generator in `workdir` with the stage 1 that it was trained on.

    stage1_workdir: the directory of stage 1, if it was moved. guiding_model: a smaller or
    less trained stage 2 on the same latents for autoguidance, WORKDIR[:step][@weights].

    Raises:
      ConfigError, CheckpointError, DataError: as `load_autoencoder`, for either stage; or
        a guiding model that does not fit.
    """
    run = saved_weights.load_run(workdir, registry.GeneratorConfig)
    if run.stage.has_encoder:
        return _single_stage_generator(run, step, weights, guiding_model)
    chosen = saved_weights.choose(run, step, weights)
    if run.stage.uses_stage1:
        autoencoder = _stage1_of(run, stage1_workdir)
    else:
        autoencoder = _autoencoder(run, {}, meshes.make(), chosen)
    mesh, sampler = autoencoder.mesh, run.stage.sampler
    assert sampler is not None
    params = saved_weights.restore_generator(chosen, run.stage, mesh)
    guiding = None
    if guiding_model is not None:
        guiding = autoguidance.load_guiding_model(guiding_model, run, mesh)
        sampler = dataclasses.replace(sampler, denoise_guiding=guiding.denoise_latent)
    return Generator(
        run.stage,
        run.datasets,
        sampler,
        params,
        autoencoder,
        chosen.step,
        chosen.name,
        chosen.ema_sources,
        guiding,
    )


def _single_stage_generator(
    run: SavedRun, step: int | None, weights: str, guiding_model: str | None
) -> Generator:
    """Load a single stage, whose prior is sampled from."""
    if guiding_model is not None:
        raise ConfigError(
            "Autoguidance needs two models on the same latents; "
            f"{run.workdir} is a single stage, whose latents are its own."
        )
    autoencoder = restore_stage1(
        run.workdir, ("encoder", "prior", "decoder"), step=step, weights=weights
    )
    assert run.stage.sampler is not None
    return Generator(
        run.stage,
        run.datasets,
        run.stage.sampler,
        autoencoder.params["prior"],
        autoencoder,
        autoencoder.step,
        autoencoder.weights,
        autoencoder.ema_sources,
    )


def _stage1_of(run: SavedRun, moved_to: str | None) -> Autoencoder:
    """Load the autoencoder that a stage 2 was trained on, and no other."""
    recorded = run.provenance["stage1"]
    workdir = saved_weights.find_stage1(run, moved_to)
    autoencoder = load_autoencoder(
        workdir, step=recorded["step"], weights=recorded["weights"]
    )
    registry.check_stage1(run.stage, autoencoder.stage, workdir)
    digest = autoencoder.identity(workdir)["encoder"]
    if digest != recorded["encoder"]:
        raise CheckpointError(
            f"{run.workdir} was trained on the encoder {recorded['encoder']} of "
            f"{recorded['workdir']}; the one in {workdir} is another encoder ({digest}). "
            "Pass the directory of the original stage 1."
        )
    return autoencoder


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
