"""What most experiments share; each sets what it changes, and says so."""

import ml_collections
from ml_collections import config_dict

ConfigDict = ml_collections.ConfigDict


def run(stage: str) -> ConfigDict:
    """Settings of the loop that no experiment here has a reason to differ in."""
    c = ConfigDict()
    c.stage = stage
    c.seed = 0
    c.accumulate = 1
    c.dtype = "float32"
    c.mesh = dict(data=-1, fsdp=1)
    c.log = dict(every=50, tensorboard=True, wandb=False)
    c.checkpoint = dict(every=1000, minutes=10.0, keep=2, keep_every=0)
    return c


def stage1() -> ConfigDict:
    """Which stage-1 run a stage 2 stands on; the workdir comes from the command line."""
    return ConfigDict(
        dict(
            workdir=config_dict.placeholder(str),
            step=config_dict.placeholder(int),
            weights="ema",
        )
    )


def transformer(head_dim: int) -> dict:
    """How transformer blocks are computed, apart from their size."""
    return dict(
        head_dim=head_dim, dropout=0.0, attention="xla", remat=False, scan=False
    )


def unknown(arg: str, known: tuple[str, ...]) -> ValueError:
    """The error for `experiments/x.py:arg` with an arg that does not exist."""
    return ValueError(f"unknown variant {arg!r}; known are {', '.join(known)}")
