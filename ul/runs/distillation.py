"""The targets of a distillation, which the frozen teacher computes before every step."""

from collections.abc import Callable
from typing import Any

import jax

from ul.core import rng
from ul.objectives import consistency
from ul.objectives.terms import Batch
from ul.stages.codec import DiffusionDecoder
from ul.stages.stage import Stage


def make_targets(
    stage: Stage, teacher: DiffusionDecoder, frozen: Any, seed: int
) -> Callable[[Batch, int], Batch]:
    """Return `add(batch, step)`, which adds what the student's objective needs.

    The batch has `image` and `z_clean`. frozen: the parameters of the teacher's run.
    """
    assert stage.distillation is not None and stage.separate_decoder is not None
    settings, num_steps = stage.distillation
    latent_logsnr = stage.separate_decoder.latent_logsnr

    @jax.jit
    def add_targets(frozen, batch, key, progress):
        def denoise(x_t, logsnr, z_0):
            return teacher.denoise_image(frozen, x_t, logsnr, z_0, None)

        return consistency.add_targets(
            settings, denoise, batch, key, progress, latent_logsnr
        )

    def add(batch: Batch, step: int) -> Batch:
        key = rng.stream(jax.random.key(seed), "distillation", step)
        return add_targets(frozen, batch, key, min(step / num_steps, 1.0))

    return add
