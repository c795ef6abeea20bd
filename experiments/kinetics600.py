"""Kinetics-600, 16 frames of 128x128, the paper's task: latents of 4x16x16x32 (4x8x8).

    python -m launch.import_video --out /data/k600 --size 128 --frames 16 \\
        --train k600/train --eval k600/val
    python -m launch.train --config experiments/kinetics600.py:stage1 --workdir gs://b/k1 \\
        --config.data.source.path=/data/k600
    python -m launch.train --config experiments/kinetics600.py:stage2 --workdir gs://b/k2 \\
        --config.data.source.path=/data/k600 --config.stage1.workdir=gs://b/k1

`stage1` codes whole clips; `stage2` is given five frames and samples the other eleven;
`stage2_medium` is its larger base. "stage1,smoke" and "stage2,smoke" are the same code at
reduced width. Never trained yet. The dry run (`launch.plan pod`, commits 14cf090, 9063c6e and
56bd825; 64 chips with data=4, fsdp=16, eight H200s with fsdp=8): FLOP a clip of training, GiB a
chip and ms a step at best
                batch           v5p:4x4x4 (95.74 GiB)  v6e:8x8 (31.25)   h200:8 (140.4)
  stage1          256  2.662 T  1.67 GiB   30.6 ms     1.67   49.3 ms    13.24  128 ms
  stage2         1024  439.2 G  2.97 GiB   25.1 ms     2.97   41.8 ms    22.35  110 ms
  stage2_medium  1024  767.2 G  4.18 GiB   35.4 ms     4.18   59.2 ms    30.79  148 ms

The paper does not say, and is decided here: convolutions 3x3 of each frame with one over three
frames between the two of a block; in transformers half of the heads attend within a frame and
half along time; the given frames are encoded as a clip whose last given frame stands still, and
seen beside the noisy latent; the outer level of the base merges 2x2 places, no frames.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, large

STAGES = ("stage1", "stage2", "stage2_medium")
VARIANTS = tuple(stage + way for stage in STAGES for way in ("", ",smoke"))


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    stage, _, way = arg.partition(",")
    c = _stage1() if stage == "stage1" else _stage2()
    if stage == "stage2_medium":
        c.base.widths = (768, 1280)
    if way == "smoke":
        large.shrink(c)
        for name in ("prior", "decoder", "base"):
            if name in c:
                c[name].head_dim = 16
    return c.lock()


def _common(stage: str) -> ml_collections.ConfigDict:
    c = large.run(stage)
    c.data = dict(
        source=dict(kind="imported_video", path=config_dict.placeholder(str)),
        image_shape=(16, 128, 128, 3),
        num_classes=600,
        flip=True,
        threads=16,
        augment="stream",
    )
    return c


def _transformer(dropout: float, remat: str) -> dict:
    return large.transformer(dropout, remat) | dict(factorized=True)


def _stage1() -> ml_collections.ConfigDict:
    c = _common("joint")
    c.steps, c.batch_size = 500_000, 256
    c.encoder = dict(
        kind="resnet",
        patch=(1, 2, 2),
        channels=(128, 256, 512),
        blocks=(2, 2, 3),
        latent_channels=32,
        remat="full",
    )
    c.prior = dict(kind="vit", widths=(1024,), depths=(8,)) | _transformer(0.0, "full")
    c.decoder = dict(
        kind="uvit",
        patch=(1, 2, 2),
        channels=(128, 256),
        blocks=2,
        width=1024,
        depth=8,
        latent_at_input=False,
    ) | _transformer(0.1, "full")
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=1.5, bias=0.0),
        ramp_steps=0,
        rate_floor_bpp=0.005,
    )
    c.sampling = dict(kind="ddim", num_steps=64)
    c.validation = dict(every=10_000, num_images=8, num_examples=256)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = _common("base")
    c.steps, c.batch_size = 500_000, 1024
    common.on_latents(c, (4, 16, 16, 32))
    c.context_frames = 5
    c.base = dict(kind="vit", widths=(512, 1024), depths=(6, 16)) | _transformer(
        0.1, "dots"
    )
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(weighting=dict(kind="sigmoid", bias=0.0), label_dropout=0.1)
    c.guidance = dict(logsnr_low=-3.0, logsnr_high=3.0)
    c.sampling = dict(kind="dpmpp_2m", num_steps=32)
    c.validation = dict(every=10_000, num_images=8, num_examples=256)
    return c
