"""Configs that the sweeps of this folder start from, by name.

The name follows the file on the command line: `experiments/sweeps/bitrate.py:imagenet512`.
"""

from experiments import common

# The runs on photographs are short; the ramp takes the same fraction of the steps as in
# photos.py.
_CONFIGS = {
    "photos": dict(
        stage1="photos:stage1_16",
        stage2="photos:stage2_16",
        fixed={
            "steps": 1000,
            "loss.ramp_steps": 600,
            "stage2:steps": 500,
            "both:checkpoint.every": 200,
        },
    ),
    "imagenet512": dict(
        stage1="imagenet512:stage1",
        stage2="imagenet512:stage2",
    ),
}
NAMES = tuple(_CONFIGS)


def configs(arg: str) -> dict:
    """Return arguments of `sweeps.trials`: the configs of both stages, and fixed overrides.

    Raises:
      ValueError: there are no configs of this name.
    """
    common.check_variant(arg, NAMES)
    return _CONFIGS[arg]
