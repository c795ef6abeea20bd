"""Gaussian images of a known spectrum: a trained stage 1 beside the exact optimum.

    python -m ul train --config gaussian:stage1 --workdir runs/g1
    python -m ul evaluate --workdir runs/g1
    python -m ul train --config gaussian:stage2 --workdir runs/g2 \\
        --config.stage1.workdir=runs/g1

The images are 4x4 gray with a power-law spectrum, so the optimal rate and distortion of the
objective are known exactly (reverse water-filling). `ul evaluate` prints them beside
the measured ones, as `optimum_bpp` and `optimum_psnr_db`. Other points of the curve follow
from `--config.loss.weighting.factor` and `--config.loss.weighting.bias`. The data are computed,
so this experiment needs no extra package. `distill` turns the decoder of a run into one of two
calls, whose samples have a known mean and variance. `smoke` and `smoke2` are stage 1 and stage
2 with four steps, for tests that take seconds.

Expected at factor 2 and bias 4: 0.485 bits/pixel where the optimum is 0.496, and a pooled
PSNR of 21.49 dB where it is 21.41, in 6 to 8 minutes on one core (RESULTS.md).
"""

import ml_collections

from experiments import common, digits, frozen

VARIANTS = ("stage1", "stage2", "distill", "smoke", "smoke2")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    c = _stage2() if arg.endswith("2") else _stage1()
    if arg == "distill":
        frozen.make_distillation(c, (1, 1, 16), num_calls=2)
        c.optimizer.lr = 5e-4
    if arg.startswith("smoke"):
        common.shorten(c, steps=4, sampling_steps=4)
    return c.lock()


def _data() -> dict:
    return dict(
        source=dict(kind="gaussian", exponent=3.0, std=0.25, num_examples=50_000),
        image_shape=(4, 4, 1),
        num_classes=1,
        flip=False,
        threads=2,
        augment="stream",
    )


def _stage1() -> ml_collections.ConfigDict:
    c = common.training_defaults("joint")
    c.steps, c.batch_size = 2500, 256
    c.data = _data()
    # There is one token, so every network is a perceptron on all pixels or latents.
    c.encoder = dict(
        kind="resnet",
        patch=4,
        channels=(128,),
        blocks=(2,),
        latent_channels=16,
        remat="none",
    )
    c.prior = dict(
        kind="vit", widths=(128,), depths=(2,)
    ) | common.transformer_settings(64)
    c.decoder = dict(
        kind="uvit",
        patch=4,
        channels=(),
        blocks=1,
        width=128,
        depth=3,
        latent_at_input=False,
    ) | common.transformer_settings(64)
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=2.0, bias=4.0),
        ramp_steps=400,
        rate_floor_bpp=0.05,
    )
    c.optimizer = common.adamw(lr=2e-3, warmup=100)
    c.ema = (0.998,)
    c.sampling = common.decoder_sampling(24)
    c.validation = dict(every=2500, num_images=16, num_examples=512)
    c.eval = dict(batch_size=512, num_examples=2048, num_draws=8)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = digits.get_config("stage2").unlock()
    c.batch_size = 256
    c.data, c.latent_shape = _data(), (1, 1, 16)
    c.base.widths, c.base.head_dim = (256,), 64
    c.validation = dict(every=2500, num_images=16, num_examples=512)
    c.eval = dict(batch_size=512, num_examples=2048, num_draws=8)
    return c
