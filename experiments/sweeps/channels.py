"""The paper's table 3: latent channels. Stage 2's latent_shape follows by itself.

python -m launch.sweep experiments/sweeps/channels.py --out runs/channels --jobs 2
"""

from experiments import sweeps
from experiments.sweeps import bases


def get_sweep(arg: str = "photos") -> list[dict]:
    channels = (2, 4, 8, 16) if arg == "photos" else (4, 8, 16, 32, 64)
    points = sweeps.grid("encoder.latent_channels", channels)
    return sweeps.trials(points, **bases.configs(arg))
