"""Crops of real photographs that ship in scikit-learn and scikit-image, 32x32 or 64x64.

Eight photographs train, two are held out; before cropping each is halved, so that a
crop shows more than texture. Variants: stage1, stage2 (32x32), stage2_fixed (one crop
an image, both ways: its latents can be cached), stage1_16, stage2_16 (16x16, for sweeps on
a laptop), stage1_64, stage2_64 (bfloat16, cuDNN attention: these two want a GPU and were
not trained yet), smoke, smoke2.

    python -m launch.train --config experiments/photos.py:stage1 --workdir runs/p1
    python -m launch.train --config experiments/photos.py:stage2 --workdir runs/p2 \\
        --config.stage1.workdir=runs/p1

Expected (`launch.evaluate`, seed 0, two cores, jax 0.10.2):
  stage1  28 minutes: rate 0.163 +- 0.02 bits/pixel (water-filling of the training crops
          says 0.20 at factor 1.7, bias 3), PSNR 22.5 +- 0.5 dB on the held-out
          photographs, where Gaussian data of the training crops have 21.3
  stage2  23 minutes: Frechet distance (pixels_8x8, 256 samples) 2.9 +- 0.5, 3.0 +- 0.5 at
          guidance 1.5; the held-out photographs are 13.0 away, for they show other things
  stage1_16  8 minutes of one core: at factor 2, bias 3 0.421 +- 0.02 bits/pixel (0.406
          predicted), PSNR 23.3 +- 0.5 dB
The times are of a machine shared with other work; stage1 and stage2 at commit 1fc7087.
"""

import ml_collections

from experiments import common, small

VARIANTS = (
    "stage1",
    "stage2",
    "stage2_fixed",
    "stage1_16",
    "stage2_16",
    "stage1_64",
    "stage2_64",
    "smoke",
    "smoke2",
)


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    size = {"_16": 16, "_64": 64}.get(arg[-3:], 32)
    first = arg.startswith("stage1") or arg == "smoke"
    make = small.stage1 if first else small.stage2
    c = make(size, _data(size))
    if arg == "stage2_fixed":
        c.data.augment = "example"
    if size == 64:
        c.dtype = "bfloat16"
        for name in ("prior", "decoder") if first else ("base",):
            c[name].attention, c[name].remat, c[name].scan = "cudnn", "full", True
    if size == 16:
        # Averaged further, so that a crop shows as much: the sweeps' size.
        c.data.source.reduce = 4
        c.steps, c.optimizer.lr = 2000, 2e-3 if first else 1e-3
        # Over 600 steps factor 2, bias 4 ended at 0.42 bits/pixel, over 1,200 at 0.55:
        # the prior seems to win before the decoder knows what more bits are worth.
        if first:
            c.loss.ramp_steps = 1200
            c.encoder.channels = (32, 64)
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
        augment="stream",
    )


def _shrink(c: ml_collections.ConfigDict) -> None:
    common.smoke(c, steps=4, sampling=3)
    c.accumulate = 2
    if "decoder" in c:
        c.prior.depths, c.decoder.depth = (1,), 1
        c.encoder.channels, c.encoder.blocks = (16, 16), (1, 1)
    else:
        c.base.depths = (2, 1)
