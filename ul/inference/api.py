"""Trained systems as Python objects: what `import ul` offers."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ul import config
from ul.checkpoints import store
from ul.checkpoints.workdir import load_config
from ul.core import batching
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.inference import autoguidance, conditions
from ul.inference import weights as stored_weights
from ul.inference.weights import load_config_of
from ul.stages import registry
from ul.stages.codec import Codec, LatentSampler

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The encoder and decoder of a stage-1 run of any kind.

    step: the checkpoint's; weights: "raw", "ema", "ema:<decay>" or "power:<width>";
    ema_sources: of which stored ones they were made, where they are not stored.
    Images are uint8 [N, H, W, C] of `image_shape`, any N.
    """

    config: config.AutoencoderConfig | config.PixelDiffusionConfig
    codec: Codec
    params: Any
    mesh: jax.sharding.Mesh
    step: int
    weights: str
    ema_sources: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.codec.image_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(h, w, c)."""
        return self.codec.latent_shape

    def identity(self, workdir) -> dict[str, Any]:
        """What a stage 2 remembers: where this lies, and a digest of the encoder."""
        return {
            "workdir": str(epath.Path(workdir).resolve()),
            "step": self.step,
            "weights": self.weights,
            "encoder": store.fingerprint(self.params["encoder"]),
        }

    def encode(self, images) -> np.ndarray:
        """uint8 [N, H, W, C] to z_clean float32 [N, h, w, c]; deterministic, no noise.

        Raises:
          DataError: images of another shape or type.
        """
        images = conditions.checked(images, self.image_shape, np.uint8, "images")
        return self._map(
            "", lambda image: self.codec.encode(self.params, image), image=images
        )

    def encode_context(self, frames: np.ndarray) -> np.ndarray:
        """First frames of clips, uint8 [N, t, H, W, C], as a stage 2 is given them."""
        few = frames.shape[1]
        return self._map(
            "",
            lambda image: self.codec.encode_context(self.params, image, few),
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
        """Latents [N, h, w, c] to uint8 [N, H, W, C]: the whole decoder sampler.

        noisy=False: z is z_clean, and the encoder's noise (logsnr 5) is added first.
        noisy=True: z already is z_0, as a generator hands it on; nothing is added.
        Image i depends on z[i], `seed` and first + i alone: a part that starts at
        number `first` is what the whole would hold there.
        """
        z = conditions.checked(z, self.latent_shape, np.float32, "latents")
        key = seed_key(seed)

        def decode(z, row):
            z_0 = z if noisy else self.codec.add_noise(z, row, key)
            return self.codec.decode(self.params, z_0, row, key)

        return self._map("decode" if progress else "", decode, z=z, row=_rows(z, first))

    def reconstruct(
        self, images, *, seed: int = 0, first: int = 0, progress: bool = False
    ) -> np.ndarray:
        """Encode, add the encoder's noise, sample the decoder: uint8 to uint8.

        `first`: the number of the first image, as in `decode`.
        """
        images = conditions.checked(images, self.image_shape, np.uint8, "images")
        key = seed_key(seed)
        return self._map(
            "reconstruct" if progress else "",
            lambda image, row: self.codec.reconstruct(self.params, image, row, key),
            image=images,
            row=_rows(images, first),
        )

    def _map(self, title: str, fn, **batch) -> np.ndarray:
        return batching.map_rows(
            fn, batch, batch_size=self.config.eval.batch_size, on=self.mesh, title=title
        )


@dataclasses.dataclass(frozen=True)
class Generator:
    """The base model of a stage-2 run with the autoencoder it was trained on.

    guide: None where guidance leads away from this model without its condition.
    """

    config: config.GeneratorConfig
    sampler: LatentSampler
    params: Any
    autoencoder: Autoencoder
    step: int
    weights: str
    ema_sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    guide: autoguidance.Guide | None = None

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1; num_classes itself asks for any class."""
        return self.config.data.num_classes

    def sample_latents(
        self,
        asked: Sequence[int] | np.ndarray | Mapping[str, np.ndarray],
        *,
        guidance: float = 1.0,
        seed: int = 0,
        first: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """What `sample` takes to noisy z_0 [N, h, w, c], ready for `decode(noisy=True)`."""
        condition = conditions.condition(
            self.config, asked, self.autoencoder.encode_context
        )
        count = len(next(iter(condition.values())))
        if not math.isfinite(guidance):
            raise ConfigError(f"guidance is {guidance}; it must be a finite number")
        key, scale = seed_key(seed), float(guidance)
        guide = self.guide.params if self.guide and scale != 1.0 else None
        return self.autoencoder._map(
            "latents" if progress else "",
            lambda row, **condition: self.sampler.sample(
                self.params, condition, row, key, scale, guide
            ),
            row=np.arange(first, first + count, dtype=np.int32),
            **condition,
        )

    def sample(
        self,
        asked: Sequence[int] | np.ndarray | Mapping[str, np.ndarray],
        *,
        guidance: float = 1.0,
        seed: int = 0,
        first: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Labels [N], or a dict of what else the model is asked by, to uint8 images
        [N, H, W, C]. guidance 1 is none.

        A text model takes {"text": [N, L, channels], "text_length": [N]}. One of clips
        {"context": their first frames, uint8 [N, t, H, W, C]}, and goes on from there: clips
        [N, T, H, W, C] that begin with them. Image i depends on row i, `seed` and first + i
        alone, so 50,000 samples can be drawn in parts.
        """
        how: dict[str, Any] = dict(seed=seed, first=first, progress=progress)
        z_0 = self.sample_latents(asked, guidance=guidance, **how)
        image = self.autoencoder.decode(z_0, noisy=True, **how)
        if "context" in registry.conditions(self.config):
            given = conditions.entry(asked, "context")
            image[:, : given.shape[1]] = given
        return image


def load_autoencoder(
    workdir, *, step: int | None = None, weights: str = "ema"
) -> Autoencoder:
    """Encoder and decoder of the stage-1 run in `workdir`, on all local devices.

    The architecture comes from its config.json, the weights from a verified checkpoint:
    the newest, or `step`. What launch.export wrote is such a directory too.

    Raises:
      ConfigError: no stage-1 run there, or no such weights.
      CheckpointError: no verified checkpoint, or a damaged one.
      DataError: damaged files of an export.
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
    """As `load_autoencoder`, with the named networks' parameters: "prior" too, say."""
    parsed = load_config_of(workdir, config.AutoencoderConfig)
    chosen = stored_weights.choose(workdir, parsed, step, weights)
    made = registry.stage1(parsed)
    shapes = jax.eval_shape(
        lambda: made.modules.init(jax.random.key(0), parsed.data.image_shape)
    )
    wanted = {name: shapes[name] for name in networks if name in shapes}
    mesh = mesh or meshes.make()
    params = stored_weights.restore(chosen, wanted, mesh)
    how = (chosen.step, chosen.name, chosen.ema_sources)
    return Autoencoder(parsed, made.codec, params, mesh, *how)


def restore_below(
    parsed: config.Stage2Config,
    networks: Sequence[str],
    *,
    step: int | None,
    mesh: jax.sharding.Mesh,
) -> tuple[Autoencoder, dict[str, Any]]:
    """The stage 1 that a stage-2 config stands on, and its identity.

    `step`: which of its checkpoints where the config does not say.

    Raises:
      ConfigError, CheckpointError: none there, or one that does not fit.
    """
    below = parsed.stage1
    if not below.workdir:
        raise ConfigError("--config.stage1.workdir is missing; give stage 1's workdir")
    registry.check_stage1(
        parsed, load_config_of(below.workdir, config.AutoencoderConfig)
    )
    ae = restore_stage1(
        below.workdir,
        networks,
        step=below.step or step,
        weights=below.weights,
        mesh=mesh,
    )
    log.info("stage 1: %s step %d, weights %s", below.workdir, ae.step, ae.weights)
    return ae, ae.identity(below.workdir)


def load_generator(
    workdir,
    *,
    step: int | None = None,
    weights: str = "ema",
    stage1_workdir: str | None = None,
    guide: str | None = None,
) -> Generator:
    """The generator of the stage-2 run in `workdir`, with the stage 1 it was trained on.

    `stage1_workdir`: where stage 1 lies now, if it was moved since. `guide`: a smaller or
    less trained stage 2 on the same latents, WORKDIR[:step][@weights].

    Raises:
      ConfigError, CheckpointError, DataError: as `load_autoencoder`, for either stage; a
        guide that does not fit.
    """
    parsed = load_config_of(workdir, config.GeneratorConfig)
    if isinstance(parsed, config.SingleStageConfig):
        if guide is not None:
            raise ConfigError(
                f"{workdir} is a single stage; no other shares its latents"
            )
        both = restore_stage1(
            workdir, ("encoder", "prior", "decoder"), step=step, weights=weights
        )
        sampler = registry.latent_sampler(parsed)
        how = (both.step, both.weights, both.ema_sources)
        return Generator(parsed, sampler, both.params["prior"], both, *how)
    chosen = stored_weights.choose(workdir, parsed, step, weights)
    if isinstance(parsed, config.PixelDiffusionConfig):
        codec, mesh = registry.pixel_codec(parsed), meshes.make()
        below = Autoencoder(parsed, codec, {}, mesh, chosen.step, chosen.name)
    else:
        below = _stage1_of(workdir, parsed, stage1_workdir)
    params, sampler = (
        stored_weights.base(chosen, parsed, below.mesh),
        registry.latent_sampler(parsed),
    )
    lesser = None
    if guide is not None:
        lesser = autoguidance.load(guide, parsed, workdir, below.mesh)
        sampler = dataclasses.replace(sampler, denoise_guide=lesser.denoise_latent)
    of = (chosen.step, chosen.name, chosen.ema_sources)
    return Generator(parsed, sampler, params, below, *of, lesser)


def _stage1_of(workdir, parsed: config.Stage2Config, moved: str | None) -> Autoencoder:
    """The autoencoder that a stage 2 was trained on, and no other."""
    used = load_config(workdir)["provenance"]["stage1"]
    autoencoder = load_autoencoder(
        stored_weights.below(workdir, moved), step=used["step"], weights=used["weights"]
    )
    below = autoencoder.config
    assert isinstance(below, config.AutoencoderConfig)
    registry.check_stage1(parsed, below)
    found = autoencoder.identity(workdir)["encoder"]
    if found != used["encoder"]:
        raise CheckpointError(
            f"{workdir} was trained on another encoder ({used['encoder']}) than the one "
            f"found ({found}); give the stage 1 of {used['workdir']}"
        )
    return autoencoder


def seed_key(seed: int):
    """The root key of an evaluation.

    Raises:
      ConfigError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must be in [0, 2^32)")
    return jax.random.key(seed)


def _rows(values, first: int) -> np.ndarray:
    return np.arange(first, first + len(values), dtype=np.int32)
