"""ImageNet at 512x512 with the model sizes of the paper (arXiv 2602.17270).

    python -m ul import_images --out /data/imagenet512 --size 512 \\
        --train ILSVRC2012_img_train.tar --eval ILSVRC2012_img_val.tar --eval_labels val.txt
    python -m ul train --config imagenet512:stage1 --workdir gs://b/s1 \\
        --config.data.source.path=/data/imagenet512
    python -m ul encode --config imagenet512:stage2 --out gs://b/latents \\
        --config.data.source.path=/data/imagenet512 --config.stage1.workdir=gs://b/s1
    python -m ul train --config imagenet512:stage2 --workdir gs://b/s2 \\
        --config.data.source.path=/data/imagenet512 --config.stage1.workdir=gs://b/s1 \\
        --config.latent_cache=gs://b/latents

`stage1` has latents of 32x32x32. `stage2` has a base model of 350M parameters,
`stage2_medium` one of 546M; both train on the latents of each image and its mirror image,
168 GB that `ul encode` writes once. `decoder` is a new decoder on a frozen encoder.
`stage1,smoke` is the same code at a reduced width, three steps on a CPU; `stage1,tfds` reads
a prepared TFDS imagenet2012 from `data.source.data_dir`, with slightly other crops.

Status: never trained. The train steps were compiled for TPU v5p, TPU v6e and H200, where
they fit (RESULTS.md). The bias is that at which the planner predicts the paper's bitrates
(large.py). The paper does not state the following, so the values are ours: two blocks per
convolutional level on each side, 1x1 convolutions where the resolution changes, pixel-wise
RMS norm, three of the six outer blocks of the base before the inner level and three after
it, heads of 128 channels, batch sizes and numbers of steps.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, frozen, large

STAGES = ("stage1", "stage2", "stage2_medium", "decoder")
OPTIONS = ("", ",smoke", ",tfds")
VARIANTS = tuple(stage + option for stage in STAGES for option in OPTIONS)


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    stage, _, option = arg.partition(",")
    c = _stage2() if stage.startswith("stage2") else _stage1()
    if stage == "decoder":
        frozen.make_decoder_stage(c, (32, 32, 32))
    if stage == "stage2_medium":
        c.base.widths = (640, 1280)
    if option == "tfds":
        c.data.source = large.TFDS_IMAGENET
    if option == "smoke":
        large.shrink(c)
    return c.lock()


def _training_defaults(stage: str) -> ml_collections.ConfigDict:
    c = large.training_defaults(stage)
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
    c = _training_defaults("joint")
    c.steps, c.batch_size = 500_000, 512
    c.encoder = dict(
        kind="resnet",
        patch=2,
        channels=(128, 256, 512, 512),
        blocks=(2, 2, 2, 3),
        latent_channels=32,
        remat="full",
    )
    c.prior = dict(
        kind="vit", widths=(1024,), depths=(8,)
    ) | large.transformer_settings(0.0, "dots")
    c.decoder = dict(
        kind="uvit",
        patch=2,
        channels=(128, 256, 512),
        blocks=2,
        width=1024,
        depth=8,
        latent_at_input=False,
    ) | large.transformer_settings(0.1, "dots")
    c.prior_schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.decoder_schedule = dict(
        kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0
    )
    c.loss = dict(
        weighting=dict(kind="sigmoid", factor=1.5, bias=large.BIAS),
        ramp_steps=large.RAMP_STEPS,
        rate_floor_bpp=config_dict.placeholder(float),
    )
    c.sampling = common.decoder_sampling(12)
    c.validation = dict(every=10_000, num_images=16, num_examples=1024)
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = _training_defaults("base")
    c.steps, c.batch_size = 500_000, 2048
    # Each image has one fixed crop, so that `ul encode` can cache its latents.
    c.data.augment = "example"
    frozen.train_on_latents(c, (32, 32, 32))
    c.base = dict(
        kind="vit", widths=(512, 1024), depths=(6, 16)
    ) | large.transformer_settings(0.1, "dots")
    c.schedule = dict(kind="linear", logsnr_max=5.0, logsnr_min=-10.0)
    c.loss = dict(
        weighting=dict(kind="sigmoid", bias=frozen.BASE_BIAS), label_dropout=0.1
    )
    c.guidance = frozen.GUIDANCE_INTERVAL
    c.sampling = common.latent_sampling(32)
    c.validation = dict(every=10_000, num_images=32, num_examples=1024)
    return c
