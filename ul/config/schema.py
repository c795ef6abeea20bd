"""Sections of configs as frozen dataclasses, shared by all stages."""

import dataclasses

# (H, W, C) for images, (T, H, W, C) for clips; latents likewise.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training and evaluation examples.

    source: a `kind` of data/sources/registry.py and its settings. threads: reader threads
    per process.
    augment: "stream" crops and flips anew in every epoch. With "example" each image has
    one crop, and `flip` adds its mirror image: N images are 2 N fixed examples.
    text: (tokens, channels) of the text embeddings that condition stage 2; (0, 0)
    means no text.
    """

    source: dict
    image_shape: Shape
    num_classes: int
    flip: bool
    threads: int
    augment: str
    text: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class Stage1Loss:
    """Loss of any stage 1.

    rate_floor_bpp: rate in bits/pixel below which the log warns of posterior collapse; a run
    that stays below it ends with exit code 76. None means half of the planned rate; 0
    disables the check.
    """

    rate_floor_bpp: float | None


@dataclasses.dataclass(frozen=True)
class RampedLoss(Stage1Loss):
    """The prior's gradient reaches the encoder in full after ramp_steps; 0 means no ramp."""

    ramp_steps: int


@dataclasses.dataclass(frozen=True)
class JointLoss(RampedLoss):
    """weighting: a `kind` of diffusion/weightings.py for the decoder, and its settings."""

    weighting: dict


@dataclasses.dataclass(frozen=True)
class DecoderLoss:
    """weighting: a `kind` of diffusion/weightings.py, and its settings."""

    weighting: dict


@dataclasses.dataclass(frozen=True)
class Stage2Loss:
    """label_dropout: how often conditions are dropped for classifier-free guidance."""

    weighting: dict
    label_dropout: float


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer of train/optim.py by its `kind`, and a schedule of the learning rate.

    warmup: steps of a linear rise to `lr`, after which `schedule` begins: "cosine" to
      final_fraction * lr, "constant", "warmup_stable_decay" (constant, and a linear fall to
      final_fraction * lr over the last decay_fraction of the steps) or "inverse_sqrt".
    clip: the largest global norm of the gradient; larger gradients are scaled down to it.
      The log has the share of such steps.
    """

    lr: float
    warmup: int
    final_fraction: float
    b1: float
    b2: float
    weight_decay: float
    clip: float
    kind: str = "adamw"
    schedule: str = "cosine"
    decay_fraction: float = 0.2


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices on each mesh axis; -1 takes the rest."""

    data: int
    fsdp: int


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Log scalars every `every` steps, to TensorBoard and W&B if chosen.

    peak_tflops: of one device, for the model FLOPs utilization; None means that of the
    chip's data sheet, if it is known.
    """

    every: int
    tensorboard: bool
    wandb: bool
    peak_tflops: float | None = None


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Validate every `every` steps.

    Validation measures the held-out loss on num_examples examples and draws num_images
    samples or reconstructions.
    """

    every: int
    num_images: int
    num_examples: int


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Save every `every` steps or `minutes` minutes and keep the last `keep` steps.

    Multiples of keep_every steps and one step each keep_minutes are kept for good; 0
    keeps none.
    """

    every: int
    minutes: float
    keep: int
    keep_every: int
    keep_minutes: float


@dataclasses.dataclass(frozen=True)
class Sampling:
    """A sampler of diffusion/samplers.py, by its `kind`, and its grid of noise levels.

    num_steps: sampler steps. Each is one network evaluation, two with guidance, and twice as
    many for "heun"; the diffusion decoder needs one more to predict x from the last sample.
    grid: "schedule" (uniform steps in the time t of the training schedule), "logsnr" (uniform
    steps in log-SNR) or "adaptive" (from nats_per_logsnr, see diffusion/sampling_grids.py).
    logsnr_max, logsnr_min: ends of the grid; None means those of the schedule.
    nats_per_logsnr: the measurement behind an adaptive grid, which `ul samplers --adapt`
    writes.
    """

    kind: str
    num_steps: int
    grid: str = "schedule"
    logsnr_max: float | None = None
    logsnr_min: float | None = None
    nats_per_logsnr: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluations of held-out examples.

    batch_size: examples at a time. num_examples: maximum number of examples. num_draws:
    the rate of an example is the mean over num_draws draws of time and noise. num_samples:
    samples that a generator is measured by. decoded: also measure decoded training images.
    """

    batch_size: int
    num_examples: int
    num_draws: int
    num_samples: int = 500
    decoded: bool = False


@dataclasses.dataclass(frozen=True)
class FrozenStage1:
    """The stage-1 run that a stage 2 builds on.

    step: None means the newest. weights: "raw", "ema", "ema:<decay>" or "power:<width>".
    """

    workdir: str | None
    step: int | None
    weights: str


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Weights of another run from which training starts; without `workdir` there are none.

    networks: the names of the networks that start from them. step: None means the newest.
    """

    workdir: str | None = None
    networks: tuple[str, ...] = ("decoder",)
    step: int | None = None
    weights: str = "ema"


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """Guidance acts where logsnr_low <= logsnr <= logsnr_high, in nats (arXiv 2404.07724)."""

    logsnr_low: float
    logsnr_high: float


@dataclasses.dataclass(frozen=True)
class WatchdogConfig:
    """Seconds without progress after which a run ends, by phase (train/guard.py).

    start: reading the config, the data and stage 1, and meeting the other processes.
    compile: compiling and running the first step.
    """

    start: float
    restore: float
    compile: float
    step: float
    save: float
    evaluation: float
