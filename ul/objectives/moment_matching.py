"""Multistep moment matching: distillation of a diffusion decoder into one of a few calls.

Salimans, Mensink, Heek, Hoogeboom, "Multistep Distillation of Diffusion Models via Moment
Matching", arXiv 2406.04103, algorithm 2, with steps in log-SNR and a decoder's latent z_0 as
the condition. The range of log-SNR is divided into K = num_calls segments of equal width
(segments.py). The student is called only at the start l of a segment. Its image x~ is then
noised to a random level s of the segment:

    x_t = alpha x + sigma eps at log-SNR l                                              (1)
    x~ = student(x_t)                                                                   (2)
    x_s = alpha x~ + sigma eps' at a log-SNR s that is uniform in the segment           (3)

If x~ had the distribution of the data given x_t, the teacher's prediction at x_s would be
the mean of x~ given x_s. An auxiliary denoiser learns that mean, regularized towards the
teacher; the student is trained to close the gap, with w = min(1 + e^s, MAX_WEIGHT) / 2:

    gap = auxiliary(x_s) - teacher(x_s)                                                 (4)
    loss(auxiliary) = w (||x~ - auxiliary(x_s)||^2 + ||teacher(x_s) - auxiliary(x_s)||^2) (5)
    loss(student) = 1/2 ||x~ - stop_gradient(x~ - w gap)||^2                            (6)

The gradient of equation 6 with respect to x~ is w gap, as that of the paper's loss
w x~ . stop_gradient(gap). Both networks are updated in every step; the paper alternates
between them. `optimizer.clip` acts on the norm of both gradients together. The value of
equation 6 is logged as `distillation`; it is a squared gap and not a loss to be compared.
Sampling takes one call per segment and adds fresh noise between the calls.

The paper draws x_s from q(x_s | x_t, x~) instead (noise = "posterior"). Such an x_s still
contains the noise from which x~ was made, and with two to four calls the samples of a
deterministic student then have too little variance (tests/objectives/test_moment_matching.py).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ul.core.errors import ConfigError
from ul.diffusion import gaussian
from ul.objectives.noise import BatchNoise
from ul.objectives.segments import DistillationObjective, TeacherAndStudent, v_weight
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class MomentMatching(DistillationObjective):
    """Settings of the distillation.

    num_calls: network calls for one sample. logsnr_min, logsnr_max: the range of log-SNR.
    noise: how x_s is drawn and how the sampler steps, "fresh" (equation 3) or "posterior"
    (as in the paper).
    """

    NETWORKS: ClassVar[tuple[str, ...]] = ("decoder", "auxiliary")
    IMAGE_FIELDS: ClassVar[tuple[str, ...]] = ("x_t", "x_s", "x_student", "x_teacher")
    SCALAR_FIELDS: ClassVar[dict[str, Any]] = dict.fromkeys(
        ("logsnr_t", "logsnr_s"), jnp.float32
    )

    LOSS_PASSES: ClassVar[int] = 0
    TARGET_PASSES: ClassVar[int] = 2

    noise: str = "fresh"

    @property
    def sampler(self) -> str:
        """The sampling method that steps from the start of one segment to the next."""
        return {"fresh": "renoise", "posterior": "ancestral"}[self.noise]

    def check(self) -> None:
        """Raise ConfigError unless the settings fit each other."""
        super().check()
        if self.noise not in ("fresh", "posterior"):
            raise ConfigError(
                'distillation.noise must be "fresh" or "posterior"; got '
                f"{self.noise!r}."
            )

    def targets(
        self, denoisers: TeacherAndStudent, x, noise: BatchNoise, progress
    ) -> dict[str, jax.Array]:
        """Return the fields of equations 1 to 3 and the teacher's prediction at x_s."""
        _, logsnr_t = self.draw_segment(noise)
        logsnr_s = logsnr_t + self.width * (1.0 - noise.uniform("part"))
        x_t = gaussian.corrupt(x, noise.normal("distillation_noise", x), logsnr_t)
        x_student = denoisers.student(x_t, logsnr_t)
        eps = noise.normal("noise_of_x_s", x)
        x_s = gaussian.corrupt(x_student, eps, logsnr_s)
        if self.noise == "posterior":
            mean, variance = gaussian.posterior(x_t, x_student, logsnr_t, logsnr_s)
            x_s = mean + jnp.sqrt(variance) * eps
        x_teacher = denoisers.teacher(x_s, logsnr_s)
        values = x_t, x_s, x_student, x_teacher, logsnr_t, logsnr_s
        names = *self.IMAGE_FIELDS, *self.SCALAR_FIELDS
        return dict(zip(names, values, strict=True))

    def loss(
        self, params: Params, batch: Batch, key, step, *, denoise_image: Callable
    ) -> Terms:
        """Return the sum of the losses of equations 5 and 6."""
        z_0, x_s, logsnr_s = batch["z_0"], batch["x_s"], batch["logsnr_s"]
        weight = v_weight(logsnr_s)
        auxiliary = {"decoder": params["auxiliary"]}
        x_hat = denoise_image(auxiliary, x_s, logsnr_s, z_0, None).astype(jnp.float32)
        to_student = jnp.square(batch["x_student"] - x_hat)
        to_teacher = jnp.square(batch["x_teacher"] - x_hat)
        auxiliary_nats = weight * gaussian.sum_elements(to_student + to_teacher)

        gap = jax.lax.stop_gradient(x_hat) - batch["x_teacher"]
        x = denoise_image(params, batch["x_t"], batch["logsnr_t"], z_0, None)
        target = jax.lax.stop_gradient(x) - gaussian.expand(weight, x) * gap
        student_nats = gaussian.sum_elements(jnp.square(x - target)) / 2.0
        return Terms(
            loss=auxiliary_nats + student_nats,
            nats={"auxiliary": auxiliary_nats, "distillation": student_nats},
            stats=latent_stats(batch["z_clean"]),
        )
