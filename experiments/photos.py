"""Crops of real photographs that ship in scikit-learn and scikit-image, 32x32 or 64x64.

Eight photographs train, two are held out; before cropping each is halved, so that a
crop shows more than texture. Variants: stage1, stage2 (32x32), stage1_64, stage2_64
(bfloat16, cuDNN attention: these two want a GPU), smoke, smoke2.
"""

import ml_collections

from experiments import common

VARIANTS = ("stage1", "stage2", "stage1_64", "stage2_64", "smoke", "smoke2")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    size = 64 if arg.endswith("_64") else 32
    first = arg in ("stage1", "stage1_64", "smoke")
    c = _stage1(size) if first else _stage2(size)
    if size == 64:
        c.dtype = "bfloat16"
        for name in ("prior", "decoder") if first else ("base",):
            c[name].attention, c[name].remat, c[name].scan = "cudnn", True, True
    if arg.startswith("smoke"):
        _shrink(c)
    return c.lock()


def _data(size: int) -> dict:
    return dict(
        source=dict(kind="photos", reduce=2, crops=4096),
        image_shape=(size, size, 3),
        num_classes=8,
        flip=True,
        threads=2,
    )


def _optimizer() -> dict:
    return dict(
        lr=1e-3,
        warmup=200,
        final_fraction=0.05,
        b1=0.9,
        b2=0.99,
        weight_decay=0.01,
        clip=1.0,
    )


def _stage1(size: int) -> ml_collections.ConfigDict:
    c = common.run("joint")
    c.steps, c.batch_size = 4000, 64
    c.data = _data(size)
    c.encoder = dict(
        patch=2, channels=(32, 64), blocks=(2, 3), latent_channels=8, remat=False
    )
    c.prior = dict(widths=(128,), depths=(4,)) | common.transformer(64)
    c.decoder = dict(
        patch=2, channels=(64,), blocks=1, width=128, depth=4, latent_at_input=True
    ) | common.transformer(64)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(factor=1.7, bias=4.0, ramp_steps=1600, rate_floor_bpp=0.02)
    c.optimizer = _optimizer()
    c.ema = (0.999, 0.9995)
    c.sampling = dict(method="ddim", num_steps=50)
    c.look = dict(every=1000, pictures=8, eval_examples=256)
    c.eval = dict(batch_size=128, examples=512, draws=4)
    return c


def _stage2(size: int) -> ml_collections.ConfigDict:
    c = common.run("base")
    c.steps, c.batch_size = 4000, 64
    c.data = _data(size)
    c.stage1 = common.stage1()
    c.latent_shape = (size // 4, size // 4, 8)
    c.base = dict(widths=(64, 128), depths=(4, 6)) | common.transformer(64)
    c.base.update(dropout=0.1)
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(bias=1.0, label_dropout=0.1)
    c.guidance = dict(logsnr_low=-3.0, logsnr_high=3.0)
    c.optimizer = _optimizer()
    c.ema = (0.999, 0.9995)
    c.sampling = dict(method="dpmpp_2m", num_steps=25)
    c.look = dict(every=1000, pictures=16, eval_examples=256)
    c.eval = dict(batch_size=128, examples=512, draws=4)
    return c


def _shrink(c: ml_collections.ConfigDict) -> None:
    """A run of seconds that touches every part."""
    c.steps, c.batch_size, c.accumulate = 4, 16, 2
    c.log.every, c.checkpoint.every = 2, 2
    c.look = dict(every=4, pictures=4, eval_examples=16)
    c.eval = dict(batch_size=16, examples=16, draws=2)
    c.sampling.num_steps = 3
    if "decoder" in c:
        c.prior.depths, c.decoder.depth = (1,), 1
        c.encoder.channels, c.encoder.blocks = (16, 16), (1, 1)
    else:
        c.base.depths = (2, 1)
