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
    c.checkpoint = dict(
        every=1000, minutes=10.0, keep=2, keep_every=0, keep_minutes=0.0
    )
    c.watchdog = dict(
        start=1800.0,
        restore=1800.0,
        compile=3600.0,
        step=900.0,
        save=1800.0,
        evaluation=3600.0,
    )
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


def on_latents(c: ConfigDict, shape: tuple[int, int, int]) -> None:
    """What a stage 2 stands on. A cache written by launch.encode may come from the command
    line. Of latents up to 4, float16 rounds off less than a hundredth of z_0's noise."""
    c.stage1 = stage1()
    c.latent_cache = config_dict.placeholder(str)
    c.latent_shape, c.latent_dtype = shape, "float16"


def transformer(head_dim: int) -> dict:
    """How transformer blocks are computed, apart from their size."""
    return dict(
        head_dim=head_dim, dropout=0.0, attention="xla", remat="none", scan=False
    )


def optimizer(lr: float, warmup: int) -> dict:
    """AdamW for runs of a few thousand steps: the rate falls to a twentieth."""
    return dict(
        lr=lr,
        warmup=warmup,
        final_fraction=0.05,
        b1=0.9,
        b2=0.99,
        weight_decay=0.01,
        clip=1.0,
    )


def smoke(c: ConfigDict, steps: int, sampling: int) -> None:
    """The loop of a run of seconds that touches every part; its networks are to shrink."""
    c.steps, c.batch_size = steps, 16
    c.log.every, c.checkpoint.every = 2, 2
    c.validation = dict(every=4, num_images=4, num_examples=16)
    c.eval = dict(batch_size=16, num_examples=16, num_draws=2)
    c.sampling.num_steps = sampling


def unknown(arg: str, known: tuple[str, ...]) -> ValueError:
    """The error for `experiments/x.py:arg` with an arg that does not exist."""
    return ValueError(f"unknown variant {arg!r}; known are {', '.join(known)}")
