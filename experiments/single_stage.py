"""Images without a stage 2, on digits: both single stages of the paper, and pixels.

    python -m launch.train --config experiments/single_stage.py:random_noise --workdir runs/r

`shifted_loss`: a plain ELBO on the prior, the decoder's loss shifted to noisier data.
`random_noise`: the prior's weighted loss as an unweighted one on extra noise, which the
decoder is told. `pixels`: no latents, the same UViT. What they gave stands in the README.
"""

import ml_collections

from experiments import common, digits

VARIANTS = ("shifted_loss", "random_noise", "pixels")


def get_config(arg: str = "random_noise") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    c = digits.get_config("stage1").unlock()
    c.steps, c.batch_size, c.validation.every = 2000, 32, 2000
    if arg == "pixels":
        _pixels(c)
    elif arg == "shifted_loss":
        _single(c, dict(kind="fixed"), bias=2.0)
    else:
        # The weight of digits' stage 2, bias 1.
        _single(c, dict(kind="truncated_logistic", bias=1.0), bias=4.0)
    return c.lock()


def _single(c: ml_collections.ConfigDict, max_logsnr: dict, bias: float) -> None:
    """The prior has the base model's size and labels."""
    c.stage = "single_stage"
    c.max_logsnr = max_logsnr
    c.loss.weighting.bias, c.loss.label_dropout = bias, 0.1
    c.guidance = dict(logsnr_low=-10.0, logsnr_high=5.0)
    c.prior.widths, c.prior.depths = (128,), (4,)


def _pixels(c: ml_collections.ConfigDict) -> None:
    for name in ("encoder", "prior", "prior_schedule", "decoder_schedule", "loss"):
        del c[name]
    c.stage = "pixel_diffusion"
    c.schedule = dict(kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0)
    c.loss = dict(weighting=dict(kind="sigmoid", bias=3.0), label_dropout=0.1)
    c.guidance = dict(logsnr_low=-12.0, logsnr_high=12.0)
