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
    c.latents = config_dict.placeholder(str)
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


def unknown(arg: str, known: tuple[str, ...]) -> ValueError:
    """The error for `experiments/x.py:arg` with an arg that does not exist."""
    return ValueError(f"unknown variant {arg!r}; known are {', '.join(known)}")


def images_stage1(size: int, data: dict) -> ConfigDict:
    """A stage 1 of a few million parameters for images of 32 or 64 pixels a side."""
    c = run("joint")
    c.steps, c.batch_size = (1500, 32) if size < 64 else (20_000, 128)
    c.data = data
    # On a CPU as dear beside stage 2's base as the paper's beside its own: about 1.6 times
    # a forward pass of it.
    c.encoder = dict(
        patch=2, channels=(80, 160), blocks=(2, 3), latent_channels=8, remat="none"
    )
    c.prior = dict(widths=(128,), depths=(4,)) | transformer(64)
    c.decoder = dict(
        patch=2, channels=(64,), blocks=1, width=128, depth=4, latent_at_input=True
    ) | transformer(64)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(factor=1.7, bias=3.0, ramp_steps=600, rate_floor_bpp=0.02)
    c.optimizer = optimizer(lr=1e-3, warmup=200)
    c.ema = (0.999, 0.9995)
    c.checkpoint.keep_every, c.checkpoint.keep_minutes = 2000, 60.0
    c.sampling = dict(method="ddim", num_steps=50)
    c.look = dict(every=500, pictures=8, eval_examples=256)
    c.eval = dict(batch_size=128, examples=512, draws=4)
    return c


def images_stage2(size: int, data: dict) -> ConfigDict:
    """Its stage 2."""
    c = run("base")
    c.steps, c.batch_size = (2000, 32) if size < 64 else (20_000, 128)
    c.data = data
    on_latents(c, (size // 4, size // 4, 8))
    c.base = dict(widths=(64, 128), depths=(4, 6)) | transformer(64)
    c.base.update(dropout=0.1)
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(bias=1.0, label_dropout=0.1)
    c.guidance = dict(logsnr_low=-3.0, logsnr_high=3.0)
    c.optimizer = optimizer(lr=1e-3, warmup=200)
    c.ema = (0.999, 0.9995)
    c.sampling = dict(method="dpmpp_2m", num_steps=25)
    c.look = dict(every=500, pictures=16, eval_examples=256)
    c.eval = dict(batch_size=128, examples=512, draws=4)
    return c
