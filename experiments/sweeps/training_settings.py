"""Settings of training one at a time on photographs of 32x32, with two seeds.

    python -m ul sweep training_settings --out runs/settings --jobs 2

All trials train stage 1 for equally many steps. `ramp` and `no_ramp` have the lowest bitrate
of photos.py; the others differ from `default` by one setting.
"""

from experiments import common, sweeps
from experiments.sweeps import grid, product

# A posterior collapse is a valid result here and must not end the run.
_LOWEST = {
    "loss.weighting.factor": 1.5,
    "loss.weighting.bias": 2.0,
    "loss.rate_floor_bpp": 0.0,
}
SETTINGS = {
    "default": {},
    "no_clip": {"optimizer.clip": 1e9},
    "muon": {"optimizer.kind": "muon"},
    "ramp": _LOWEST,
    "no_ramp": _LOWEST | {"loss.ramp_steps": 0},
    "residual_upsampling": {"decoder.residual_upsampling": True},
    "dropout_below_top": {"decoder.dropout": 0.1},
    "dropout_everywhere": {
        "decoder.dropout": 0.1,
        "decoder.level_dropout": (0.1,),
    },
    "no_latent_at_input": {"decoder.latent_at_input": False},
}


def get_sweep(arg: str = "all") -> list[dict]:
    """Return the trials of all settings, or of the one named `arg`."""
    common.check_variant(arg, ("all", *SETTINGS))
    return [
        trial
        for name, setting in SETTINGS.items()
        if arg in ("all", name)
        for trial in sweeps.trials(
            product([{"loss.ramp_steps": 200} | setting], grid("seed", (0, 1))),
            stage1="photos:stage1",
            fixed={"steps": 500, "batch_size": 16, "validation.every": 500},
            name=lambda point, name=name: f"{name}-seed{point['seed']}",
        )
    ]
