"""Settings that the models of the paper's sizes share."""

import ml_collections

from experiments import common

# With the spectrum of natural photographs this bias gives the five bitrates of the paper's
# table 2 within 20 % (`ul plan bitrate --config imagenet512:stage1 --spectrum natural`).
BIAS = 2.1
# The prior's gradient rises over a fifth of the 500,000 steps. Without a ramp, small models
# may collapse (launch/PLAN.md).
RAMP_STEPS = 100_000

TFDS_IMAGENET = dict(
    kind="tfds",
    name="imagenet2012",
    data_dir="~/tensorflow_datasets",
    train_split="train",
    eval_split="validation",
)


def training_defaults(stage: str) -> ml_collections.ConfigDict:
    """Return a config of a `stage`: bfloat16, fsdp over 8 devices, constant learning rate."""
    c = common.training_defaults(stage)
    c.dtype = "bfloat16"
    c.mesh = dict(data=-1, fsdp=8)
    c.log.every = 100
    c.checkpoint.update(every=5000, keep_every=50_000)
    c.optimizer = common.adamw(lr=1e-4, warmup=10_000)
    c.optimizer.update(final_fraction=1.0, weight_decay=0.0)
    c.ema = (0.9999,)
    c.eval = dict(batch_size=256, num_examples=50_000, num_draws=1)
    return c


def transformer_settings(dropout: float, remat: str) -> dict:
    """Return transformer settings with heads of 128 channels, compiled as one scan."""
    changes = dict(dropout=dropout, remat=remat, scan=True)
    return common.transformer_settings(128) | changes


def shrink(c: ml_collections.ConfigDict) -> None:
    """Turn a config into a smoke test: a fraction of the width and few blocks."""
    common.shorten(c, steps=3, sampling_steps=2)
    c.mesh.fsdp, c.data.threads = 1, 2
    for name, widths, depths in (("prior", (32,), (1,)), ("base", (32, 64), (2, 1))):
        if name in c:
            c[name].update(widths=widths, depths=depths, head_dim=32)
    if "encoder" in c:
        stages = len(c.encoder.channels)
        c.encoder.update(channels=(4, 8, 16, 16)[:stages], blocks=(1,) * stages)
    if "decoder" in c:
        levels = len(c.decoder.channels)
        c.decoder.update(channels=(4, 8, 16)[:levels], blocks=1, width=32)
        c.decoder.update(depth=1, head_dim=32)
