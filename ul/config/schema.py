"""The sections of configs, as frozen classes."""

import dataclasses

# (H, W, C) of images, (T, H, W, C) of clips; of latents likewise.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Data:
    """source: a kind of data/sources/basic.py and its settings. threads: readers a process.

    augment "stream": every epoch crops and flips anew. "example": an image has one crop,
    and with flip comes both ways: N images are 2N examples that never change.
    text: (tokens, channels) of what stage 2 is told in words; (0, 0): nothing.
    """

    source: dict
    image_shape: Shape
    num_classes: int
    flip: bool
    threads: int
    augment: str = "stream"  # not in configs from before there was a choice
    text: tuple[int, int] = (0, 0)  # nor this


@dataclasses.dataclass(frozen=True)
class Loss:
    """Of any stage 1. rate_floor_bpp: below it the log warns of a collapse."""

    rate_floor_bpp: float


@dataclasses.dataclass(frozen=True)
class JointLoss(Loss):
    """factor, bias: the decoder's weight. ramp_steps: 0 is no ramp (objectives/joint)."""

    factor: float
    bias: float
    ramp_steps: int


@dataclasses.dataclass(frozen=True)
class DetachedLoss(Loss):
    """kl_weight: of KL[q(z_0 | x) || N(0, I)], in place of the prior's gradient."""

    factor: float
    bias: float
    kl_weight: float


@dataclasses.dataclass(frozen=True)
class MseLoss(Loss):
    """precision: the inverse variance of the pixels around the reconstruction."""

    precision: float
    ramp_steps: int


@dataclasses.dataclass(frozen=True)
class KlLoss(Loss):
    precision: float
    kl_weight: float


@dataclasses.dataclass(frozen=True)
class SingleLoss(JointLoss):
    label_dropout: float


@dataclasses.dataclass(frozen=True)
class BaseLoss:
    bias: float
    label_dropout: float


@dataclasses.dataclass(frozen=True)
class Optimizer:
    lr: float
    warmup: int
    final_fraction: float
    b1: float
    b2: float
    weight_decay: float
    clip: float


@dataclasses.dataclass(frozen=True)
class MeshAxes:
    """Devices on each axis; -1 takes the rest."""

    data: int
    fsdp: int


@dataclasses.dataclass(frozen=True)
class Log:
    every: int
    tensorboard: bool
    wandb: bool


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Every `every` steps: held-out loss of `num_examples`, and `num_images` images drawn."""

    every: int
    num_images: int
    num_examples: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Save every so many steps or minutes; keep the last `keep`, and for good every
    `keep_every` steps and one each `keep_minutes` (0: none)."""

    every: int
    minutes: float
    keep: int
    keep_every: int
    keep_minutes: float


@dataclasses.dataclass(frozen=True)
class Sampling:
    method: str
    num_steps: int


@dataclasses.dataclass(frozen=True)
class Eval:
    """Rows at a time, how many held-out examples at the most, and of how many times
    and noises each example's rate is the mean."""

    batch_size: int
    num_examples: int
    num_draws: int


@dataclasses.dataclass(frozen=True)
class Stage1:
    """Where stage 1 was trained. step None: its newest; weights: raw, or an EMA decay."""

    workdir: str | None
    step: int | None
    weights: str


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance inside a logsnr interval."""

    logsnr_low: float
    logsnr_high: float


@dataclasses.dataclass(frozen=True)
class Watchdog:
    """Seconds without a sign of life after which a run ends, by phase (train/guard.py).

    start: reading configs, data and stage 1, and meeting the other processes.
    compile: with the first step.
    """

    start: float
    restore: float
    compile: float
    step: float
    save: float
    evaluation: float
