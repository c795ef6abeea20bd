"""Clips of one real digit that moves, 16 frames of 16x16: both stages in half an hour.

    python -m launch.train --config experiments/moving_digits.py:stage1 --workdir runs/m1
    python -m launch.encode --config experiments/moving_digits.py:stage2 --out runs/mz \\
        --config.stage1.workdir=runs/m1
    python -m launch.train --config experiments/moving_digits.py:stage2 --workdir runs/m2 \\
        --config.stage1.workdir=runs/m1 --config.latent_cache=runs/mz
    python -m launch.evaluate --workdir runs/m2 --guidance 2

Stage 2 is given five frames and continues them: the evaluation says in how many clips the
digit stays what it is, and how far it is from where it moves to. `smoke` and `smoke2` touch
every part in seconds.

Expected (seed 0, commit 9063c6e, 29 minutes on two idle cores): 0.089 bits/pixel, 22.9 dB; of
500 clips continued at guidance 2 the digit stays in 83 %, 0.35 pixels from where it goes (2.38
if it stood still), at guidance 1 in 77 %.
"""

import ml_collections

from experiments import common

VARIANTS = ("stage1", "stage2", "smoke", "smoke2")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    c = _stage1() if arg in ("stage1", "smoke") else _stage2()
    if arg.startswith("smoke"):
        _shrink(c)
    return c.lock()


def _data() -> dict:
    return dict(
        source=dict(kind="moving_digits", num_examples=40_000),
        image_shape=(16, 16, 16, 1),
        num_classes=10,
        flip=False,
        threads=2,
        augment="stream",
    )


def _transformer() -> dict:
    return common.transformer(32) | dict(factorized=True)


def _stage1() -> ml_collections.ConfigDict:
    """4x in time and space: 4x4x4 latents, of which each sees four frames.

    Factor and bias are high: at 2 and 4 the digit's place was kept, not which it is.
    """
    c = common.run("joint")
    c.steps, c.batch_size = 2400, 32
    c.data = _data()
    c.encoder = dict(
        kind="resnet",
        patch=2,
        channels=(32, 64),
        blocks=(1, 2),
        latent_channels=8,
        remat="none",
    )
    c.prior = dict(kind="vit", widths=(128,), depths=(2,)) | _transformer()
    c.decoder = (
        dict(
            kind="uvit",
            patch=2,
            channels=(32,),
            blocks=1,
            width=128,
            depth=3,
            latent_at_input=True,
        )
        | _transformer()
    )
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=4.0, bias=5.0),
        ramp_steps=1600,
        rate_floor_bpp=0.01,
    )
    c.optimizer = common.optimizer(lr=2e-3, warmup=100)
    c.ema = (0.998,)
    c.sampling = dict(kind="ancestral", num_steps=30)
    c.validation = dict(every=500, num_images=8, num_examples=64)
    c.eval = dict(batch_size=64, num_examples=256, num_draws=4)
    return c


def _stage2() -> ml_collections.ConfigDict:
    """What comes next is nearly known, so it is to be told from noise alone: most weight
    and most draws are at low logsnr. Blocks run on 2x2 merged places."""
    c = common.run("base")
    c.steps, c.batch_size = 14_000, 32
    c.data = _data()
    common.on_latents(c, (4, 4, 4, 8))
    c.context_frames = 5
    c.base = dict(kind="vit", widths=(128, 192), depths=(0, 6)) | common.transformer(32)
    c.schedule = dict(kind="cosine", logsnr_max=5.0, logsnr_min=-10.0, shift=-1.0)
    c.loss = dict(weighting=dict(kind="sigmoid", bias=-3.0), label_dropout=0.1)
    c.guidance = dict(logsnr_low=-10.0, logsnr_high=5.0)
    c.optimizer = common.optimizer(lr=2e-3, warmup=100)
    c.ema = (0.999,)
    c.sampling = dict(kind="ddim", num_steps=30)
    c.validation = dict(every=4000, num_images=8, num_examples=64)
    c.eval = dict(batch_size=64, num_examples=256, num_draws=4)
    return c


def _shrink(c: ml_collections.ConfigDict) -> None:
    common.smoke(c, steps=8, sampling=4)
    if "prior" in c:
        c.prior.widths, c.prior.depths = (64,), (1,)
    if "base" in c:
        c.base.widths, c.base.depths = (64, 64), (0, 1)
    if "decoder" in c:
        c.decoder.width, c.decoder.depth = 64, 1
        c.encoder.channels, c.encoder.blocks = (16, 16), (1, 1)
        c.decoder.channels = (16,)
