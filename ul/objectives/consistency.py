"""Multistep consistency distillation of a diffusion decoder into one of a few calls.

Heek, Hoogeboom, Salimans, "Multistep Consistency Models", arXiv 2403.06807, with steps in
log-SNR and a decoder's latent z_0 as the condition. The range of log-SNR is divided into
K = num_calls segments of equal width:

    l_k = logsnr_min + k / K (logsnr_max - logsnr_min),   k = 0 ... K                   (1)

The last segment ends at the clean image instead of l_K. From x_t anywhere in a segment the
student predicts the image whose DDIM step to the end e of the segment leads where the
teacher's probability-flow ODE leads:

    x_t = alpha x + sigma eps at log-SNR l                                              (2)
    x_s = the teacher's Heun step from l to s, an n-th of the segment further           (3)
    x_e = ddim(x_s, stop_gradient(student(x_s)), s -> e), or x_s if s = e               (4)
    x_ref solves ddim(x_t, x_ref, l -> e) = x_e                                         (5)
    loss = min(1 + e^l, MAX_WEIGHT) / 2 ||student(x_t) - x_ref||^2                      (6)

At the end of the last segment x_e is the teacher's prediction. n grows during training.
Samples take one call per segment: K - 1 DDIM steps and a last prediction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ul.core.errors import ConfigError
from ul.diffusion import gaussian, samplers
from ul.diffusion.samplers import Denoiser, SamplerStep
from ul.objectives.noise import BatchNoise
from ul.objectives.segments import DistillationObjective, TeacherAndStudent, v_weight
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class Consistency(DistillationObjective):
    """Settings of the distillation.

    num_calls: network calls for one sample. substeps: the number n of parts per segment at
    the start and at the end of training. logsnr_min, logsnr_max: the range of equation 1.
    """

    NETWORKS: ClassVar[tuple[str, ...]] = ("decoder",)
    IMAGE_FIELDS: ClassVar[tuple[str, ...]] = ("x_t", "x_s", "x_e")
    SCALAR_FIELDS: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("logsnr_t", "logsnr_s", "logsnr_e"), jnp.float32),
        **dict.fromkeys(("is_last", "is_end"), jnp.bool_),
    }

    LOSS_PASSES: ClassVar[int] = 1
    TARGET_PASSES: ClassVar[int] = 3

    substeps: tuple[int, int] = (4, 16)

    @property
    def sampler(self) -> str:
        """The sampling method that steps from the start of one segment to the next."""
        return "ddim"

    def check(self) -> None:
        """Raise ConfigError unless the settings fit each other."""
        super().check()
        first, last = self.substeps
        if not 1 <= first <= last:
            raise ConfigError(
                "distillation.substeps must be two integers, 1 <= first <= last; got "
                f"{self.substeps}."
            )

    def targets(
        self, denoisers: TeacherAndStudent, x, noise: BatchNoise, progress
    ) -> dict[str, jax.Array]:
        """Return the fields of equations 2 and 3, and x_e where the student does not matter."""
        first, last = self.substeps
        num_parts = jnp.round(first + (last - first) * progress)
        segment, start = self.draw_segment(noise)
        part = jnp.floor(noise.uniform("part") * num_parts)
        logsnr_t = start + self.width * part / num_parts
        logsnr_s = start + self.width * (part + 1) / num_parts
        x_t = gaussian.corrupt(x, noise.normal("distillation_noise", x), logsnr_t)
        x_s = heun(denoisers.teacher, x_t, logsnr_t, logsnr_s)
        is_last, is_end = segment == self.num_calls - 1, part == num_parts - 1
        both = gaussian.expand(is_last & is_end, x)
        x_e = jnp.where(both, denoisers.teacher(x_s, logsnr_s), x_s)
        logsnr_e = start + self.width
        values = x_t, x_s, x_e, logsnr_t, logsnr_s, logsnr_e, is_last, is_end
        names = *self.IMAGE_FIELDS, *self.SCALAR_FIELDS
        return dict(zip(names, values, strict=True))

    def loss(
        self, params: Params, batch: Batch, key, step, *, denoise_image: Callable
    ) -> Terms:
        """Return the loss of equation 6."""
        z_0 = batch["z_0"]
        frozen = jax.lax.stop_gradient(params)
        x_s, logsnr_s = batch["x_s"], batch["logsnr_s"]
        x_hat_s = denoise_image(frozen, x_s, logsnr_s, z_0, None).astype(jnp.float32)
        is_end = gaussian.expand(batch["is_end"], x_s)
        reached = end_of_segment(x_s, x_hat_s, logsnr_s, batch)
        x_e = jnp.where(is_end, batch["x_e"], reached)
        x_ref = reference(batch["x_t"], x_e, batch)
        x_hat = denoise_image(params, batch["x_t"], batch["logsnr_t"], z_0, None)
        nats = v_weight(batch["logsnr_t"]) * gaussian.sum_elements(
            jnp.square(x_hat - x_ref)
        )
        return Terms(
            loss=nats,
            nats={"distillation": nats},
            stats=latent_stats(batch["z_clean"]),
        )


def heun(denoise: Denoiser, x_t, logsnr_t, logsnr_s):
    """Return x_s after one step of `heun_correction` (diffusion/samplers.py)."""
    step = _step(logsnr_t, logsnr_s, x_t)
    x_hat = denoise(x_t, logsnr_t)
    x_s = samplers.ddim(x_t, x_hat, None, step, None)
    return samplers.heun_correction(x_t, x_hat, denoise(x_s, logsnr_s), step)


def end_of_segment(x, x_hat, logsnr, batch: Batch):
    """Return where DDIM leads from x at `logsnr` [B]; for the last segment that is x_hat."""
    step = _step(logsnr, batch["logsnr_e"], x)
    is_last = gaussian.expand(batch["is_last"], x)
    return jnp.where(is_last, x_hat, samplers.ddim(x, x_hat, None, step, None))


def reference(x_t, x_e, batch: Batch):
    """Return the prediction at x_t whose DDIM step leads to x_e (equation 5)."""
    logsnr_t, logsnr_e = (
        gaussian.expand(batch[name], x_t) for name in ("logsnr_t", "logsnr_e")
    )
    ratio = gaussian.sigma(logsnr_e) / gaussian.sigma(logsnr_t)
    slope = gaussian.alpha(logsnr_e) * -jnp.expm1((logsnr_t - logsnr_e) / 2.0)
    is_last = gaussian.expand(batch["is_last"], x_t)
    return jnp.where(is_last, x_e, (x_e - ratio * x_t) / slope)


def _step(logsnr_t, logsnr_s, like) -> SamplerStep:
    """Return a sampler step with its own ends for each example."""
    start, end = (gaussian.expand(logsnr, like) for logsnr in (logsnr_t, logsnr_s))
    return SamplerStep(jnp.int32(0), start, end, jnp.float32(0.0))
