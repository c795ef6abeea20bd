"""The bias of stage 2, relative to the scale of its latents, with two seeds.

    python -m ul sweep base_bias --out runs/base_bias --jobs 2
    python -m ul sweep base_bias:photos --out runs/base_bias_photos --jobs 2

The stages 2 of a seed share one stage 1. The data are digits, or photographs of 16x16;
`:imagenet512` runs it on ImageNet at 512x512 (never run).
"""

from experiments import common, sweeps
from experiments.sweeps import bases, grid, product

BIASES = (-3.0, -2.0, -1.0, 0.0, 1.0)
# The lengths of `make demo`.
_DIGITS = dict(
    stage1="digits:stage1",
    stage2="digits:stage2",
    fixed={"steps": 1000, "loss.ramp_steps": 400, "stage2:steps": 1200},
)


def get_sweep(arg: str = "digits") -> list[dict]:
    common.check_variant(arg, ("digits", *bases.NAMES))
    points = product(
        grid("both:seed", (0, 1)), grid("stage2:loss.weighting.bias", BIASES)
    )
    configs = _DIGITS if arg == "digits" else bases.configs(arg)
    return sweeps.trials(points, share_stage1=True, **configs)
