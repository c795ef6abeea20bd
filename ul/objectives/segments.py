"""Segments of log-SNR, and the batches of the distillations that are divided into them."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ul.core import arrays, rng
from ul.core.errors import ConfigError
from ul.diffusion.samplers import Denoiser
from ul.objectives.joint import add_encoder_noise
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch

# Near the clean image the loss of a prediction of v would leave nothing for other levels.
MAX_WEIGHT = 1000.0


class DistilledDenoisers(NamedTuple):
    """The decoders of a distillation for one batch, whose z_0 they know.

    Each maps (x_t [B, *grid, C], logsnr [B]) to x_hat, without any gradient.
    """

    teacher: Denoiser
    student: Denoiser


@dataclasses.dataclass(frozen=True)
class SegmentedRange:
    """The settings of all distillations: K = num_calls segments of equal width in log-SNR.

    Their starts are logsnr_min + k / K (logsnr_max - logsnr_min), k = 0 ... K - 1. A sample
    takes one call of the student at each.

    NETWORKS: the networks that are trained; each
    starts from the teacher's weights. FIELDS: the arrays that `targets` adds to a batch, by
    name: True for the shape of the image in float32, else the dtype of an array [B].
    LOSS_PASSES, TARGET_PASSES: forward passes of decoders that are not differentiated, in
    the loss and in `targets`.
    """

    NETWORKS: ClassVar[tuple[str, ...]]
    FIELDS: ClassVar[dict[str, object]]
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
        """The method between the starts of the segments."""
        raise NotImplementedError

    def draw_segment(self, noise: BatchNoise) -> tuple[jax.Array, jax.Array]:
        """Return the number of each example's segment, and its start [B]."""
        number = jnp.floor(noise.time("segment") * self.num_calls)
        return number, self.logsnr_min + self.width * number

    def targets(
        self, denoisers: DistilledDenoisers, x, noise: BatchNoise, progress
    ) -> dict[str, jax.Array]:
        """Return FIELDS for images x [B, *grid, C] in -1..1, without any gradient.

        progress: the fraction of training, 0..1.
        """
        raise NotImplementedError

    def loss(self, params, batch: Batch, key, step, *, denoise_image: Callable):
        """Return the Terms of a batch with `z_0` and FIELDS.

        denoise_image(params, x_t, logsnr, z_0, key) -> x_hat, by params["decoder"].
        """
        raise NotImplementedError


def v_weight(logsnr):
    """Return half the weight that a squared error of v has as one of x, limited."""
    return jnp.minimum(1.0 + jnp.exp(logsnr), MAX_WEIGHT) / 2.0


def add_targets(
    settings: SegmentedRange,
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

    denoisers = DistilledDenoisers(denoiser(teacher), denoiser(student))
    x = arrays.scale_pixels(batch["image"])
    return batch | {"z_0": z_0} | settings.targets(denoisers, x, noise, progress)
