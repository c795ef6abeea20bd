"""A stage as typed objects: what the rest of the system gets instead of a config."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ul.config import RunConfig
from ul.config.schema import EvalConfig, Sampling
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import JointNetworks
from ul.objectives.segments import DistillationObjective
from ul.stages.codec import Codec, DiffusionDecoder, LatentSampler
from ul.stages.conditions import Conditions


class JointDiffusion(NamedTuple):
    """A diffusion prior and a diffusion decoder on one deterministic encoder.

    Needed for the likelihood bound and the rate split.
    """

    networks: JointNetworks
    prior_schedule: Schedule
    decoder_schedule: Schedule


class LatentPrior(NamedTuple):
    """A diffusion prior on a deterministic encoder.

    denoise_latent(params, z_t, logsnr, key) -> z_hat.
    """

    denoise_latent: Callable
    schedule: Schedule


class SeparateDecoder(NamedTuple):
    """A decoder that is trained on the latents of another run, noisy at latent_logsnr."""

    decoder: DiffusionDecoder
    latent_logsnr: float


class Distillation(NamedTuple):
    """The settings that make targets out of a teacher, and the steps of the whole run."""

    settings: DistillationObjective
    steps: int


@dataclasses.dataclass(frozen=True)
class NetworkUse:
    """One network of a stage, with what decides its FLOPs.

    shape: shape of its input, (*grid, channels). extra_channels: channels of its other
    input, z_0 or a context latent. text: (tokens, channels) of its text.
    needs_input_gradient: whether training differentiates its input.
    undifferentiated_passes: forward passes in the loss besides the differentiated one.
    """

    module: Any
    shape: tuple[int, ...]
    extra_channels: int = 0
    text: tuple[int, int] = (0, 0)
    needs_input_gradient: bool = True
    undifferentiated_passes: int = 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training, built from its config by `ul.stages.registry.build`.

    name: the name of its kind ("joint", "base", ...). latent_shape: shape of the latents
    that its prior or base model diffuses. init(root key) -> parameters.
    objective, held_out_objective: `(params, batch, key, step) -> Terms`, with and without
    dropout; None for a stage that is imported, not trained.
    rate_objective: the unweighted bound on the rate of the latents under a base model;
    None for a stage 1 (also for a single stage), whose objectives return the rate.
    batch: shape and dtype of an example's arrays that the objective takes.
    networks: networks by their name in the parameters; a stage 2 has one, whose
    parameters are the whole tree.
    codec: encoder and decoder; None for a stage 2, which takes those of its stage 1, and
    for a separate decoder, which takes the encoder.
    sampler, conditions: those of a generator; otherwise None, and no conditions.
    weighting: the decoder's or the base model's; None if the decoder uses a squared error.
    latent_prior: diffusion prior of a stage 1 with a deterministic encoder, else None.
    separate_decoder: decoder of stage "decoder" or "distill", else None.
    distillation: that of stage "distill", else None.
    """

    name: str
    image_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    num_classes: int
    evaluation: EvalConfig
    init: Callable[[Any], Any]
    objective: Callable | None
    held_out_objective: Callable | None
    batch: Mapping[str, tuple[tuple[int, ...], Any]]
    networks: Mapping[str, NetworkUse]
    conditions: Conditions
    sampling: Sampling | None = None
    weighting: Callable | None = None
    codec: Codec | None = None
    joint_diffusion: JointDiffusion | None = None
    sampler: LatentSampler | None = None
    rate_objective: Callable | None = None
    latent_prior: LatentPrior | None = None
    separate_decoder: SeparateDecoder | None = None
    distillation: Distillation | None = None

    @property
    def is_autoencoder(self) -> bool:
        """Whether a stage 2 can use its latents; a separate decoder has its encoder's."""
        return "encoder" in self.networks or self.separate_decoder is not None

    @property
    def is_generator(self) -> bool:
        """Whether images can be sampled from conditions."""
        return self.sampler is not None

    @property
    def uses_stage1(self) -> bool:
        """Whether it is trained on the latents of another run."""
        return self.codec is None


@dataclasses.dataclass(frozen=True)
class StageKind:
    """A row of the registry of stages.

    config: its config class, whose fields are the keys of its configs.
    build(config) -> Stage.
    """

    name: str
    config: type[RunConfig]
    build: Callable[[Any], Stage]
