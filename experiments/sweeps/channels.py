"""The sweep of the paper's table 3: the number of latent channels.

    python -m ul sweep channels --out runs/channels --jobs 2

The shape of stage 2's latents is derived from stage 1. The data are photographs of 16x16.
`:imagenet512` after the file runs it on ImageNet at 512x512 instead (never run).
"""

from experiments import sweeps
from experiments.sweeps import bases


def get_sweep(arg: str = "photos") -> list[dict]:
    channels = (2, 4, 8, 16) if arg == "photos" else (4, 8, 16, 32, 64)
    points = sweeps.grid("encoder.latent_channels", channels)
    return sweeps.trials(points, **bases.configs(arg))
