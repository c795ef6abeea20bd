"""Loss factor and bias against bits/pixel, on photographs of 16x16: both stages.

    python -m launch.sweep experiments/sweeps/bitrate.py --out runs/bitrate --jobs 2
    python -m launch.sweep experiments/sweeps/bitrate.py:imagenet512 --out gs://b/bitrate ...

Eight trials of 1,000 and 500 steps, on one core each; `launch.plan bitrate` predicts them.
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, product


def get_sweep(arg: str = "photos") -> list[dict]:
    biases = (2.0, 3.0) if arg == "photos" else (0.0, 1.0)
    factors = (1.5, 1.7, 2.0, 2.5) if arg == "photos" else (1.3, 1.5, 1.7, 1.9)
    points = product(
        grid("loss.weighting.bias", biases), grid("loss.weighting.factor", factors)
    )
    return sweeps.trials(points, **bases.configs(arg))
