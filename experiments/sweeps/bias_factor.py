"""The paper's figure 8: five loss factors at several biases. Which biases is chosen here.

python -m launch.sweep experiments/sweeps/bias_factor.py --out runs/bias_factor --jobs 2
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, product


def get_sweep(arg: str = "photos") -> list[dict]:
    biases = (1.0, 2.0, 3.0) if arg == "photos" else (-1.0, 0.0, 1.0)
    factors = grid("loss.weighting.factor", (1.5, 1.75, 2.0, 3.0, 4.0))
    return sweeps.trials(
        product(grid("loss.weighting.bias", biases), factors), **bases.configs(arg)
    )
