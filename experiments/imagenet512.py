"""ImageNet at 512x512, the paper's sizes (arXiv 2602.17270): latents of 32x32x32.

    python -m launch.import_images --out /data/imagenet512 --size 512 \\
        --train ILSVRC2012_img_train.tar --eval ILSVRC2012_img_val.tar --eval_labels val.txt
    python -m launch.train --config experiments/imagenet512.py:stage1 --workdir gs://b/s1 \\
        --config.data.source.path=/data/imagenet512
    python -m launch.train --config experiments/imagenet512.py:stage2 --workdir gs://b/s2 \\
        --config.data.source.path=/data/imagenet512 --config.stage1.workdir=gs://b/s1
    python -m launch.plan pod --config experiments/imagenet512.py:stage2_medium \\
        --topology v5p:4x4x4 --mesh data=4,fsdp=16

"stage1,tfds" reads a prepared TFDS imagenet2012 instead (--config.data.source.data_dir=..),
its crops bicubic in one go, not the reference's. "stage1,smoke" and "stage2,smoke" are the
same code at reduced width: three steps in a minute or two on a CPU.

`stage2`: the base of widths 512 and 1024, 350M parameters; `stage2_medium`: of 640 and 1280,
546M. Never trained yet. The dry run (`launch.plan pod`, commits 0448b3d, d34e376, 56bd825; 64
chips with data=4, fsdp=16, eight H200s with fsdp=8): FLOP an image of training, GiB a chip and
ms a step at best
                batch           v5p:4x4x4 (95.74 GiB)  v6e:8x8 (31.25)   h200:8 (140.4)
  stage1          512  3.736 T  3.33 GiB   79.8 ms     3.34   97.4 ms    24.20  299 ms
  stage2         2048  484.1 G  6.50 GiB   56 ms       6.25   93.3 ms    49.89  285 ms
  stage2_medium  2048  740.2 G  8.22 GiB   66 ms       7.91  116 ms      64.68  357 ms

The paper does not say, and is decided here: two blocks a convolutional stage and side, 1x1
convolutions to change resolution, pixel-wise RMS norm, three of the base's six outer blocks on
each way, head_dim 128, factor 1.5 with bias 0, batch and steps.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, large

STAGES = ("stage1", "stage2", "stage2_medium")
WAYS = ("", ",smoke", ",tfds")
TFDS = dict(
    kind="tfds",
    name="imagenet2012",
    data_dir="~/tensorflow_datasets",
    train_split="train",
    eval_split="validation",
)
VARIANTS = tuple(stage + way for stage in STAGES for way in WAYS)


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    stage, _, way = arg.partition(",")
    c = _stage1() if stage == "stage1" else _stage2()
    if stage == "stage2_medium":
        c.base.widths = (640, 1280)
    if way == "tfds":
        c.data.source = TFDS
    if way == "smoke":
        large.shrink(c)
    return c.lock()


def _common(stage: str) -> ml_collections.ConfigDict:
    c = large.run(stage)
    c.data = dict(
        source=dict(kind="imported", path=config_dict.placeholder(str)),
        image_shape=(512, 512, 3),
        num_classes=1000,
        flip=True,
        threads=16,
        augment="stream",
    )
    return c


def _stage1() -> ml_collections.ConfigDict:
    c = _common("joint")
    c.steps, c.batch_size = 500_000, 512
    c.encoder = dict(
        kind="resnet",
        patch=2,
        channels=(128, 256, 512, 512),
        blocks=(2, 2, 2, 3),
        latent_channels=32,
        remat="full",
    )
    c.prior = dict(kind="vit", widths=(1024,), depths=(8,)) | large.transformer(
        0.0, "full"
    )
    c.decoder = dict(
        kind="uvit",
        patch=2,
        channels=(128, 256, 512),
        blocks=2,
        width=1024,
        depth=8,
        latent_at_input=False,
    ) | large.transformer(0.1, "full")
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
    c.validation = dict(every=10_000, num_images=16, num_examples=1024)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = _common("base")
    c.steps, c.batch_size = 500_000, 2048
    common.on_latents(c, (32, 32, 32))
    c.base = dict(kind="vit", widths=(512, 1024), depths=(6, 16)) | large.transformer(
        0.1, "dots"
    )
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(weighting=dict(kind="sigmoid", bias=0.0), label_dropout=0.1)
    c.guidance = dict(logsnr_low=-3.0, logsnr_high=3.0)
    c.sampling = dict(kind="dpmpp_2m", num_steps=32)
    c.validation = dict(every=10_000, num_images=32, num_examples=1024)
    return c
