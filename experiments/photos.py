"""Crops of the photographs that ship with scikit-learn and scikit-image, 16x16 to 64x64.

    python -m ul train --config photos:stage1 --workdir runs/p1
    python -m ul train --config photos:stage2 --workdir runs/p2 \\
        --config.stage1.workdir=runs/p1
    python -m ul evaluate --workdir runs/p1
    python -m ul evaluate --workdir runs/p2 --num_examples 256 --guidance 1,1.5

The training data are random crops of eight photographs; two other photographs are held out.
Both sides of the photographs are halved first, so that a crop shows more than texture.

  stage1, stage2        32x32
  stage2_fixed          stage2 on one fixed crop per image and its mirror image, so that
                        `ul encode` can cache the latents
  stage1_16, stage2_16  16x16, for sweeps on a laptop
  decoder, decoder_16   a new decoder on a frozen encoder, 32x32 and 16x16
  distill, distill_16   the decoder of a run as one of two calls, 32x32 and 16x16
  stage1_64, stage2_64  64x64 in bfloat16, for a GPU; never trained
  smoke, smoke2         stage 1 and stage 2 at 32x32 with tiny networks, for tests

Expected: stage 1 reaches 0.163 bits/pixel and PSNR 22.5 dB in 28 minutes, stage 2 a Frechet
distance of 2.9 in 23 minutes, and stage1_16 at factor 2 and bias 3 reaches 0.421 bits/pixel
and 23.3 dB in 8 minutes; two shared cores, for stage1_16 one (RESULTS.md).
"""

import ml_collections

from experiments import common, frozen, small

VARIANTS = (
    "stage1",
    "stage2",
    "stage2_fixed",
    "stage1_16",
    "stage2_16",
    "stage1_64",
    "stage2_64",
    "decoder",
    "decoder_16",
    "distill",
    "distill_16",
    "smoke",
    "smoke2",
)


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    size = {"_16": 16, "_64": 64}.get(arg[-3:], 32)
    is_stage1 = arg.startswith(("stage1", "decoder", "distill")) or arg == "smoke"
    make_config = small.stage1_config if is_stage1 else small.stage2_config
    c = make_config(size, _data(size))
    if arg == "stage2_fixed":
        c.data.augment = "example"
    if size == 64:
        c.dtype = "bfloat16"
        for name in ("prior", "decoder") if is_stage1 else ("base",):
            c[name].remat, c[name].scan = "full", True
    if size == 16:
        # Photographs are averaged further, so that a small crop shows as much of them.
        c.data.source.reduce = 4
        c.steps, c.optimizer.lr = 2000, 2e-3 if is_stage1 else 1e-3
        # With a ramp of only 600 steps the rate stays too low at high factors and biases
        # (RESULTS.md).
        if is_stage1:
            c.loss.ramp_steps = 1200
            c.encoder.channels = (32, 64)
    if arg.startswith("decoder"):
        frozen.make_decoder_stage(c, (size // 4, size // 4, 8))
    if arg.startswith("distill"):
        frozen.make_distillation(c, (size // 4, size // 4, 8), num_calls=2)
        c.steps, c.optimizer.lr = 1200, 5e-4
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
    common.shorten(c, steps=4, sampling_steps=3)
    c.accumulate = 2
    if "decoder" in c:
        c.prior.depths, c.decoder.depth = (1,), 1
        c.encoder.channels, c.encoder.blocks = (16, 16), (1, 1)
    else:
        c.base.depths = (2, 1)
