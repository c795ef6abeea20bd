"""What the ready sweeps run on, by name: `experiments/sweeps/bitrate.py:imagenet512`."""

from experiments import common

# Photographs of 16x16 in short runs of one core; the ramp keeps its part of the steps.
_BASES = {
    "photos": dict(
        stage1="experiments/photos.py:stage1_16",
        stage2="experiments/photos.py:stage2_16",
        fixed={
            "steps": 1000,
            "loss.ramp_steps": 600,
            "stage2:steps": 500,
            "both:checkpoint.every": 200,
        },
    ),
    "imagenet512": dict(
        stage1="experiments/imagenet512.py:stage1",
        stage2="experiments/imagenet512.py:stage2",
    ),
}
NAMES = tuple(_BASES)


def configs(arg: str) -> dict:
    """Arguments of `sweeps.trials`: both stages' configs, and what all trials change."""
    if arg not in _BASES:
        raise common.unknown(arg, NAMES)
    return _BASES[arg]
