"""scikit-learn's handwritten digits, 8x8 gray: both stages in minutes on a laptop.

    python -m ul train --config digits:stage1 --workdir runs/s1
    python -m ul train --config digits:stage2 --workdir runs/s2 \\
        --config.stage1.workdir=runs/s1
    python -m ul evaluate --workdir runs/s1
    python -m ul evaluate --workdir runs/s2 --guidance 1,1.5

The data are 1,797 scanned digits of 10 classes, of which a fifth is held out. `stage1`
trains encoder, prior and decoder with latents of 4x4x4; `stage2` trains a class-conditional
diffusion model on these latents. `make demo` runs these commands. `decoder` trains a new
decoder on a frozen encoder; `distill` turns the decoder of a run into one of two calls.
`smoke`, `smoke2`, `smoke_decoder` and `smoke_distill` are the same with tiny networks, for
tests that take seconds.

Expected: stage 1 reaches 0.85 bits/pixel and PSNR 22.0 dB, stage 2 a class accuracy of 0.97
(0.99 at guidance 1.5), each in 4 minutes on two cores (RESULTS.md).
"""

import ml_collections

from experiments import common, frozen

VARIANTS = ("stage1", "stage2", "decoder", "distill")
VARIANTS += ("smoke", "smoke2", "smoke_decoder", "smoke_distill")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    c = _stage2() if arg.endswith("2") else _stage1()
    if arg.endswith("decoder"):
        frozen.make_decoder_stage(c, (4, 4, 4))
    if arg.endswith("distill"):
        frozen.make_distillation(c, (4, 4, 4), num_calls=2)
        c.steps, c.optimizer.lr = 1200, 5e-4
    if arg.startswith("smoke"):
        calls = 2 if arg.endswith("distill") else 4
        common.shorten(c, steps=8, sampling_steps=calls)
        common.shrink_networks(c, width=32)
    return c.lock()


def _data() -> dict:
    return dict(
        source=dict(kind="digits"),
        image_shape=(8, 8, 1),
        num_classes=10,
        flip=False,
        threads=2,
        augment="stream",
    )


def _stage1() -> ml_collections.ConfigDict:
    c = common.training_defaults("joint")
    c.steps, c.batch_size = 2000, 64
    c.data = _data()
    c.encoder = dict(
        kind="resnet",
        patch=1,
        channels=(32, 64),
        blocks=(2, 3),
        latent_channels=4,
        remat="none",
    )
    c.prior = dict(kind="vit", widths=(96,), depths=(3,)) | common.transformer_settings(
        32
    )
    c.decoder = dict(
        kind="uvit",
        patch=1,
        channels=(32,),
        blocks=1,
        width=96,
        depth=3,
        latent_at_input=False,
    ) | common.transformer_settings(32)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=2.0, bias=4.0),
        ramp_steps=800,
        rate_floor_bpp=0.05,
    )
    c.optimizer = common.adamw(lr=2e-3, warmup=100)
    c.ema = (0.998,)
    c.sampling = common.decoder_sampling()
    c.validation = dict(every=500, num_images=10, num_examples=360)
    c.eval = dict(batch_size=256, num_examples=360, num_draws=16)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = common.training_defaults("base")
    c.steps, c.batch_size = 2500, 64
    c.data = _data()
    frozen.train_on_latents(c, (4, 4, 4))
    c.base = dict(kind="vit", widths=(128,), depths=(4,)) | common.transformer_settings(
        32
    )
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(
        weighting=dict(kind="sigmoid", bias=frozen.BASE_BIAS), label_dropout=0.1
    )
    c.guidance = dict(logsnr_low=-20.0, logsnr_high=20.0)
    c.optimizer = common.adamw(lr=2e-3, warmup=100)
    c.ema = (0.998,)
    c.sampling = common.latent_sampling()
    c.validation = dict(every=500, num_images=20, num_examples=360)
    c.eval = dict(batch_size=256, num_examples=360, num_draws=16)
    return c
