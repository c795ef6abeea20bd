"""Gaussian images of a known spectrum: a trained stage 1 against the exact optimum.

    python -m launch.train --config experiments/gaussian.py:stage1 --workdir runs/g1
    python -m launch.evaluate --workdir runs/g1      # prints rate, PSNR and the optimum's

Expected (seed 0, commit e4f8637, one of two busy cores, 6 to 8 minutes), at bias 4:
  factor 1.5  rate 0.202 bits/pixel of 0.207, PSNR (pooled) 18.84 dB of 18.80
  factor 2    0.485 of 0.496, 21.49 of 21.41
  factor 2.5  0.732 of 0.770, 23.26 of 23.28
"""

import ml_collections

from experiments import common

VARIANTS = ("stage1", "smoke")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    c = common.run("joint")
    c.steps, c.batch_size = 2500, 256
    c.data = dict(
        source=dict(kind="gaussian", exponent=3.0, std=0.25, num_examples=50_000),
        image_shape=(4, 4, 1),
        num_classes=1,
        flip=False,
        threads=2,
        augment="stream",
    )
    # One token: every network is a perceptron on all pixels or latents at once.
    c.encoder = dict(
        kind="resnet",
        patch=4,
        channels=(128,),
        blocks=(2,),
        latent_channels=16,
        remat="none",
    )
    c.prior = dict(kind="vit", widths=(128,), depths=(2,)) | common.transformer(64)
    c.decoder = dict(
        kind="uvit",
        patch=4,
        channels=(),
        blocks=1,
        width=128,
        depth=3,
        latent_at_input=False,
    ) | common.transformer(64)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=2.0, bias=4.0),
        ramp_steps=400,
        rate_floor_bpp=0.05,
    )
    c.optimizer = common.optimizer(lr=2e-3, warmup=100)
    c.ema = (0.998,)
    c.sampling = dict(kind="ancestral", num_steps=250)
    c.validation = dict(every=2500, num_images=16, num_examples=512)
    c.eval = dict(batch_size=512, num_examples=2048, num_draws=8)
    if arg == "smoke":
        c.steps, c.batch_size = 4, 16
        c.log.every, c.checkpoint.every = 2, 2
        c.validation = dict(every=4, num_images=4, num_examples=16)
        c.eval = dict(batch_size=16, num_examples=16, num_draws=2)
        c.sampling.num_steps = 4
    return c.lock()
