"""Configs of both stages with a few million parameters, for images of 16, 32 or 64 pixels."""

import ml_collections

from experiments import common, frozen


def stage1_config(size: int, data: dict) -> ml_collections.ConfigDict:
    """Return a stage 1 for images of size x size: encoder, prior and decoder."""
    c = common.training_defaults("joint")
    c.steps, c.batch_size = (1500, 32) if size < 64 else (20_000, 128)
    c.data = data
    # On a CPU the encoder costs about 1.6 forward passes of the base of stage 2, a ratio as
    # in the paper.
    c.encoder = dict(
        kind="resnet",
        patch=2,
        channels=(80, 160),
        blocks=(2, 3),
        latent_channels=8,
        remat="none",
    )
    c.prior = dict(
        kind="vit", widths=(128,), depths=(4,)
    ) | common.transformer_settings(64)
    c.decoder = dict(
        kind="uvit",
        patch=2,
        channels=(64,),
        blocks=1,
        width=128,
        depth=4,
        latent_at_input=True,
    ) | common.transformer_settings(64)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=1.7, bias=3.0),
        ramp_steps=600,
        rate_floor_bpp=0.02,
    )
    c.optimizer = common.adamw(lr=1e-3, warmup=200)
    c.ema = (0.999, 0.9995)
    c.checkpoint.keep_every, c.checkpoint.keep_minutes = 2000, 60.0
    c.sampling = common.decoder_sampling()
    c.validation = dict(every=500, num_images=8, num_examples=256)
    c.eval = dict(batch_size=128, num_examples=512, num_draws=4)
    return c


def stage2_config(size: int, data: dict) -> ml_collections.ConfigDict:
    """Return a stage 2 on the latents of `stage1_config`."""
    c = common.training_defaults("base")
    c.steps, c.batch_size = (2000, 32) if size < 64 else (20_000, 128)
    c.data = data
    frozen.train_on_latents(c, (size // 4, size // 4, 8))
    c.base = dict(
        kind="vit", widths=(64, 128), depths=(4, 6)
    ) | common.transformer_settings(64)
    c.base.update(dropout=0.1)
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(
        weighting=dict(kind="sigmoid", bias=frozen.BASE_BIAS), label_dropout=0.1
    )
    c.guidance = frozen.GUIDANCE_INTERVAL
    c.optimizer = common.adamw(lr=1e-3, warmup=200)
    c.ema = (0.999, 0.9995)
    c.sampling = common.latent_sampling()
    c.validation = dict(every=500, num_images=16, num_examples=256)
    c.eval = dict(batch_size=128, num_examples=512, num_draws=4)
    return c
