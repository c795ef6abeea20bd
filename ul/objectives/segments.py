"""The base of the distillation objectives: segments of log-SNR, targets, weights."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ul.core import arrays, rng
from ul.core.errors import ConfigError
from ul.diffusion.samplers import Denoiser
from ul.objectives.joint import add_encoder_noise
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch

# The weight 1 + e^logsnr is unbounded near the clean image and would dominate all others.
MAX_WEIGHT = 1000.0


class TeacherAndStudent(NamedTuple):
    """Denoisers of teacher and student, conditioned on the z_0 of one batch.

    Each maps (x_t [B, *grid, C], logsnr [B]) to x_hat; neither is differentiated.
    """

    teacher: Denoiser
    student: Denoiser


@dataclasses.dataclass(frozen=True)
class DistillationObjective:
    """Base class of distillation objectives on K = num_calls equal segments of log-SNR.

    The segments start at logsnr_min + k / K (logsnr_max - logsnr_min), k = 0 ... K - 1.
    Sampling calls the student once at each start.

    NETWORKS: the networks that are trained; each starts from the teacher's weights.
    IMAGE_FIELDS, SCALAR_FIELDS: names of the arrays that `targets` adds to a batch: float32 of
    the image's shape, and arrays [B] with their dtypes.
    LOSS_PASSES, TARGET_PASSES: forward passes of decoders that are not differentiated, in
    the loss and in `targets`.
    """

    NETWORKS: ClassVar[tuple[str, ...]]
    IMAGE_FIELDS: ClassVar[tuple[str, ...]]
    SCALAR_FIELDS: ClassVar[dict[str, Any]]
    LOSS_PASSES: ClassVar[int]
    TARGET_PASSES: ClassVar[int]

    num_calls: int
    logsnr_min: float = -8.0
    logsnr_max: float = 9.0

    @property
    def width(self) -> float:
        """The width of a segment."""
        return (self.logsnr_max - self.logsnr_min) / self.num_calls

    def check(self) -> None:
        """Raise ConfigError unless the settings fit each other."""
        if self.num_calls < 1:
            raise ConfigError(
                f"distillation.num_calls must be at least 1; got {self.num_calls}."
            )

    @property
    def sampler(self) -> str:
        """The sampling method that steps from the start of one segment to the next."""
        raise NotImplementedError

    def draw_segment(self, noise: BatchNoise) -> tuple[jax.Array, jax.Array]:
        """Return the number of each example's segment, and its start [B]."""
        number = jnp.floor(noise.time("segment") * self.num_calls)
        return number, self.logsnr_min + self.width * number

    def targets(
        self, denoisers: TeacherAndStudent, x, noise: BatchNoise, progress
    ) -> dict[str, jax.Array]:
        """Return the fields for images x [B, *grid, C] in -1..1, without any gradient.

        progress: the fraction of training, 0..1.
        """
        raise NotImplementedError

    def loss(self, params, batch: Batch, key, step, *, denoise_image: Callable):
        """Return the Terms of a batch with `z_0` and the fields.

        denoise_image(params, x_t, logsnr, z_0, key) -> x_hat, by params["decoder"].
        """
        raise NotImplementedError


def v_weight(logsnr):
    """Return min(1 + e^logsnr, MAX_WEIGHT) / 2, half the factor from x errors to v errors."""
    return jnp.minimum(1.0 + jnp.exp(logsnr), MAX_WEIGHT) / 2.0


def add_targets(
    settings: DistillationObjective,
    teacher: Callable,
    student: Callable,
    batch: Batch,
    key,
    progress,
    latent_logsnr: float,
) -> Batch:
    """Return a batch of `image` and `z_clean` with `z_0` and what `settings.loss` takes.

    teacher(x_t, logsnr, z_0) -> x_hat, and student likewise.
    """
    noise = BatchNoise.for_batch(batch, rng.stream(key, "distillation"))
    z_0 = add_encoder_noise(batch["z_clean"], noise, latent_logsnr)

    def denoiser(network: Callable) -> Denoiser:
        return lambda x_t, logsnr: network(x_t, logsnr, z_0).astype(jnp.float32)

    denoisers = TeacherAndStudent(denoiser(teacher), denoiser(student))
    x = arrays.scale_pixels(batch["image"])
    return batch | {"z_0": z_0} | settings.targets(denoisers, x, noise, progress)
