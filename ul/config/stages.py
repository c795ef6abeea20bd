"""Which keys a config of each stage has."""

import dataclasses
from typing import ClassVar

from ul.config.schema import (
    BaseLoss,
    Checkpoint,
    Data,
    DetachedLoss,
    Eval,
    Guidance,
    JointLoss,
    KlLoss,
    Log,
    Loss,
    MeshAxes,
    MseLoss,
    Optimizer,
    Sampling,
    Shape,
    SingleLoss,
    Stage1,
    ValidationConfig,
    Watchdog,
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Of everything that has a workdir: what an evaluation reads."""

    stage: str
    seed: int
    dtype: str
    data: Data
    eval: Eval


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Of everything that is trained.

    ema: which averages of the parameters are kept, the first the usual one: decays, or
    "power:<width>" (train/ema.py).
    """

    steps: int
    batch_size: int
    accumulate: int
    optimizer: Optimizer
    ema: tuple[float | str, ...]
    mesh: MeshAxes
    log: Log
    validation: ValidationConfig
    checkpoint: Checkpoint
    watchdog: Watchdog
    sampling: Sampling


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(RunConfig):
    """Any stage 1."""


@dataclasses.dataclass(frozen=True)
class ExternalConfig(AutoencoderConfig):
    """Another's KL autoencoder: imported, not trained (ul/importing/autoencoder_weights.py).

    Its latents are scale (mean - shift); `latent_logsnr` is what a base model stops at.
    """

    networks: dict
    scale: float
    shift: float
    latent_logsnr: float


@dataclasses.dataclass(frozen=True)
class Stage1Config(AutoencoderConfig, TrainConfig):
    """A stage 1 of ours. Networks and schedules stay dicts: their constructors check them."""

    encoder: dict
    decoder: dict
    loss: Loss


@dataclasses.dataclass(frozen=True)
class JointConfig(Stage1Config):
    """Unified Latents' stage 1 (objectives/joint.py)."""

    prior: dict
    prior_schedule: dict
    decoder_schedule: dict
    loss: JointLoss


@dataclasses.dataclass(frozen=True)
class NormalPriorConfig(Stage1Config):
    """No prior network; the latents' noise is of log-SNR `latent_logsnr`."""

    latent_logsnr: float
    decoder_schedule: dict
    loss: JointLoss


@dataclasses.dataclass(frozen=True)
class MseDecoderConfig(Stage1Config):
    """The decoder's UViT in one call."""

    prior: dict
    prior_schedule: dict
    loss: MseLoss


@dataclasses.dataclass(frozen=True)
class LearnedVarianceConfig(JointConfig):
    """The encoder has a variance of its own below the fixed noise."""


@dataclasses.dataclass(frozen=True)
class DetachedPriorConfig(Stage1Config):
    """The prior never reaches the encoder; a discounted KL does."""

    prior: dict
    prior_schedule: dict
    decoder_schedule: dict
    loss: DetachedLoss


@dataclasses.dataclass(frozen=True)
class KlAutoencoderConfig(Stage1Config):
    """Latent diffusion's autoencoder; `latent_logsnr` is what a base model stops at."""

    latent_logsnr: float
    loss: KlLoss


@dataclasses.dataclass(frozen=True)
class SingleStageConfig(JointConfig):
    """Both stages in one: the prior sees labels, and is sampled from."""

    least_noise: dict
    loss: SingleLoss
    guidance: Guidance


@dataclasses.dataclass(frozen=True)
class Stage2Config(TrainConfig):
    """Stage 2. latent_shape is what the base model takes; stage 1 must give it.

    latents: a cache that launch.encode wrote. None: images are encoded while training.
    latent_dtype: what latents are rounded to, from a cache or not: training is the same.
    context_frames: of a clip, how many first frames are given; the rest is to be sampled.
    """

    stage1: Stage1
    latent_shape: Shape
    base: dict
    schedule: dict
    loss: BaseLoss
    guidance: Guidance
    latent_cache: str | None = None  # not in configs from before there were caches
    latent_dtype: str = "float32"  # nor this
    context_frames: int = 0  # nor this


@dataclasses.dataclass(frozen=True)
class PixelDiffusionConfig(TrainConfig):
    """Diffusion on pixels, without latents; the decoder's UViT sees the label."""

    decoder: dict
    schedule: dict
    loss: BaseLoss
    guidance: Guidance
    latent_dtype: ClassVar[str] = "float32"


STAGES: dict[str, type[RunConfig]] = {
    "joint": JointConfig,
    "base": Stage2Config,
    "external": ExternalConfig,
    "normal_prior": NormalPriorConfig,
    "mse_decoder": MseDecoderConfig,
    "learned_variance": LearnedVarianceConfig,
    "detached_prior": DetachedPriorConfig,
    "kl_autoencoder": KlAutoencoderConfig,
    "single": SingleStageConfig,
    "pixels": PixelDiffusionConfig,
}
# What one can sample images from, labels in.
GeneratorConfig = Stage2Config | SingleStageConfig | PixelDiffusionConfig
