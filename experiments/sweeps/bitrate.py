"""Loss factor and bias against bits/pixel, PSNR and sample quality: eight trials.

    python -m ul sweep bitrate --out runs/bitrate --jobs 2

The data are photographs of 16x16; each trial trains stage 1 for 1,000 steps and stage 2 for
500. `ul plan bitrate --config photos:stage1_16` predicts the rates.
`:imagenet512` after the file runs it on ImageNet at 512x512 instead (never run).
"""

from experiments import large, sweeps
from experiments.sweeps import bases, grid, product


def get_sweep(arg: str = "photos") -> list[dict]:
    biases = (2.0, 3.0) if arg == "photos" else (large.BIAS, large.BIAS + 1.0)
    factors = (1.5, 1.7, 2.0, 2.5) if arg == "photos" else (1.3, 1.5, 1.7, 1.9)
    points = product(
        grid("loss.weighting.bias", biases), grid("loss.weighting.factor", factors)
    )
    return sweeps.trials(points, **bases.configs(arg))
