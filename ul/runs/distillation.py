"""The targets of a distillation, which the frozen teacher computes before every step."""

from collections.abc import Callable
from typing import Any

import jax

from ul.core import rng
from ul.objectives import segments
from ul.objectives.terms import Batch
from ul.stages.codec import DiffusionDecoder
from ul.stages.stage import Stage


def make_targets(
    stage: Stage, teacher: DiffusionDecoder, frozen: Any, seed: int
) -> Callable[[Batch, int, Any], Batch]:
    """Return `add(batch, step, params)`, which adds what the student's objective needs.

    The batch has `image` and `z_clean`; params are the student's before the step. frozen:
    the parameters of the teacher's run.
    """
    assert stage.distillation is not None and stage.separate_decoder is not None
    settings, num_steps = stage.distillation
    student, latent_logsnr = stage.separate_decoder

    @jax.jit
    def add_targets(frozen, params, batch, key, progress):
        def denoise_by_teacher(x_t, logsnr, z_0):
            return teacher.denoise_image(frozen, x_t, logsnr, z_0, None)

        def denoise_by_student(x_t, logsnr, z_0):
            return student.denoise_image(params, x_t, logsnr, z_0, None)

        return segments.add_targets(
            settings,
            denoise_by_teacher,
            denoise_by_student,
            batch,
            key,
            progress,
            latent_logsnr,
        )

    def add(batch: Batch, step: int, params) -> Batch:
        key = rng.stream(jax.random.key(seed), "distillation", step)
        return add_targets(frozen, params, batch, key, min(step / num_steps, 1.0))

    return add
