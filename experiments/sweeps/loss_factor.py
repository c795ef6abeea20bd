"""The sweep of the paper's table 2: five loss factors.

    python -m ul sweep loss_factor --out runs/loss_factor --jobs 2

The data are photographs of 16x16. `:imagenet512` after the file runs it on ImageNet at 512x512
instead (never run).
"""

from experiments import sweeps
from experiments.sweeps import bases


def get_sweep(arg: str = "photos") -> list[dict]:
    points = sweeps.grid("loss.weighting.factor", (1.3, 1.5, 1.7, 1.9, 2.1))
    return sweeps.trials(points, **bases.configs(arg))
