"""Digits without a stage 2: the paper's two single-stage variants, and pixel diffusion.

    python -m ul train --config single_stage:random_noise --workdir runs/r
    python -m ul evaluate --workdir runs/r

  shifted_loss  The prior has the unweighted ELBO, and samples are drawn from it. The
                decoder's loss is shifted to noisier data.
  random_noise  The latents get random additional noise, so that the unweighted loss of the
                prior acts as a weighted one. The decoder is conditioned on the noise level.
  pixels        The UViT of the decoder as a diffusion model of pixels, without latents.

Each variant is trained for 2,000 steps of 32 digits. `ul ablations` trains them together
with experiments/ablations.py and adds them to table 6 of the paper, which has no such rows.

Expected: 0.225 bits/pixel and a class accuracy of 0.81 for `shifted_loss`, 2.15 and 0.78 for
`random_noise`, and a class accuracy of 0.96 for `pixels` (RESULTS.md).
"""

import ml_collections

from experiments import common, digits

VARIANTS = ("shifted_loss", "random_noise", "pixels")


def get_config(arg: str = "random_noise") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    c = digits.get_config("stage1").unlock()
    c.steps, c.batch_size, c.validation.every = 2000, 32, 2000
    if arg == "pixels":
        _make_pixel_diffusion(c)
    elif arg == "shifted_loss":
        _make_single_stage(c, dict(kind="fixed"), bias=2.0)
    else:
        # Bias 1 gives the weighting of stage 2 in digits.py.
        _make_single_stage(c, dict(kind="truncated_logistic", bias=1.0), bias=4.0)
    return c.lock()


def _make_single_stage(
    c: ml_collections.ConfigDict, max_logsnr: dict, bias: float
) -> None:
    """Merge stage 2 into stage 1: the prior gets the size and the labels of the base."""
    c.stage = "single_stage"
    c.max_logsnr = max_logsnr
    c.loss.weighting.bias, c.loss.label_dropout = bias, 0.1
    c.guidance = dict(logsnr_low=-10.0, logsnr_high=5.0)
    c.prior.widths, c.prior.depths = (128,), (4,)


def _make_pixel_diffusion(c: ml_collections.ConfigDict) -> None:
    for name in ("encoder", "prior", "prior_schedule", "decoder_schedule", "loss"):
        del c[name]
    c.stage = "pixel_diffusion"
    c.schedule = dict(kind="cosine", logsnr_max=12.0, logsnr_min=-12.0, shift=0.0)
    c.loss = dict(weighting=dict(kind="sigmoid", bias=3.0), label_dropout=0.1)
    c.guidance = dict(logsnr_low=-12.0, logsnr_high=12.0)
    c.sampling = common.latent_sampling(32)
