"""The sweep of the paper's figure 8: five loss factors, each at three biases.

    python -m ul sweep bias_factor --out runs/bias_factor --jobs 2

The biases are chosen here, around the planned one. The data are photographs of 16x16.
`:imagenet512` after the file runs it on ImageNet at 512x512 instead (never run).
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, product


def get_sweep(arg: str = "photos") -> list[dict]:
    biases = (1.0, 2.0, 3.0)
    factors = grid("loss.weighting.factor", (1.5, 1.75, 2.0, 3.0, 4.0))
    return sweeps.trials(
        product(grid("loss.weighting.bias", biases), factors), **bases.configs(arg)
    )
