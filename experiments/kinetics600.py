"""Kinetics-600, clips of 16 frames of 128x128: the video task of the paper.

    python -m ul import_video --out /data/k600 --size 128 --frames 16 \\
        --train k600/train --eval k600/val
    python -m ul train --config kinetics600:stage1 --workdir gs://b/k1 \\
        --config.data.source.path=/data/k600
    python -m ul train --config kinetics600:stage2 --workdir gs://b/k2 \\
        --config.data.source.path=/data/k600 --config.stage1.workdir=gs://b/k1

`stage1` encodes whole clips as latents of 4x16x16x32 (frames, height, width, channels).
`stage2` is conditioned on the first five frames and samples the other eleven;
`stage2_medium` has a larger base model. `stage1,smoke` and so on are the same code at a
reduced width, three steps on a CPU.

Status: never trained. The train steps were compiled for TPU v5p, TPU v6e and H200, where
they fit (RESULTS.md).

The paper does not state the following, so the choices are ours: each residual block has 3x3
convolutions within a frame and one convolution over three frames between them; half of the
attention heads attend within a frame and half along time; the encoder encodes the context
frames as a clip that repeats the last of them, and the base sees these latents beside the
noisy ones; the outer level of the base merges 2x2 latents within a frame and none along time.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, frozen, large

STAGES = ("stage1", "stage2", "stage2_medium")
VARIANTS = tuple(stage + option for stage in STAGES for option in ("", ",smoke"))


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    stage, _, option = arg.partition(",")
    c = _stage1() if stage == "stage1" else _stage2()
    if stage == "stage2_medium":
        c.base.widths = (768, 1280)
    if option == "smoke":
        large.shrink(c)
        for name in ("prior", "decoder", "base"):
            if name in c:
                c[name].head_dim = 16
    return c.lock()


def _training_defaults(stage: str) -> ml_collections.ConfigDict:
    c = large.training_defaults(stage)
    c.data = dict(
        source=dict(kind="imported_video", path=config_dict.placeholder(str)),
        image_shape=(16, 128, 128, 3),
        num_classes=600,
        flip=True,
        threads=16,
        augment="stream",
    )
    return c


def _transformer_settings(dropout: float, remat: str) -> dict:
    return large.transformer_settings(dropout, remat) | dict(factorized=True)


def _stage1() -> ml_collections.ConfigDict:
    c = _training_defaults("joint")
    c.steps, c.batch_size = 500_000, 256
    c.encoder = dict(
        kind="resnet",
        patch=(1, 2, 2),
        channels=(128, 256, 512),
        blocks=(2, 2, 3),
        latent_channels=32,
        remat="full",
    )
    c.prior = dict(kind="vit", widths=(1024,), depths=(8,)) | _transformer_settings(
        0.0, "dots"
    )
    c.decoder = dict(
        kind="uvit",
        patch=(1, 2, 2),
        channels=(128, 256),
        blocks=2,
        width=1024,
        depth=8,
        latent_at_input=False,
    ) | _transformer_settings(0.1, "dots")
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=1.5, bias=large.BIAS),
        ramp_steps=large.RAMP_STEPS,
        rate_floor_bpp=0.005,
    )
    c.sampling = common.decoder_sampling(12)
    c.validation = dict(every=10_000, num_images=8, num_examples=256)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = _training_defaults("base")
    c.steps, c.batch_size = 500_000, 1024
    frozen.train_on_latents(c, (4, 16, 16, 32))
    c.context_frames = 5
    c.base = dict(
        kind="vit", widths=(512, 1024), depths=(6, 16)
    ) | _transformer_settings(0.1, "dots")
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(
        weighting=dict(kind="sigmoid", bias=frozen.BASE_BIAS), label_dropout=0.1
    )
    c.guidance = frozen.GUIDANCE_INTERVAL
    c.sampling = common.latent_sampling(32)
    c.validation = dict(every=10_000, num_images=8, num_examples=256)
    return c
