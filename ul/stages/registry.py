"""From settings to objects: networks, schedules, objectives, samplers.

With `runs.py` the only reader of configs: settings in, objects that know none out.
"""

from ul.config.registry import of_kind, plain
from ul.stages.networks import modules
from ul.stages.parts import portable, uses_cudnn
from ul.stages.stage1 import Diffusions, Stage1, stage1
from ul.stages.stage2 import (
    base_objective,
    base_rate,
    check_stage1,
    conditions,
    init_base,
    latent_sampler,
    latent_shape,
    pixel_codec,
)

__all__ = [
    "Diffusions",
    "Stage1",
    "base_objective",
    "base_rate",
    "check_stage1",
    "conditions",
    "init_base",
    "latent_sampler",
    "latent_shape",
    "modules",
    "of_kind",
    "pixel_codec",
    "plain",
    "portable",
    "stage1",
    "uses_cudnn",
]
