"""The paper's table 5 and rows A, B and D of table 6, on scikit-learn's digits.

    python -m ul ablations --out runs/ablations
    python -m ul train --config ablations:normal_prior --workdir runs/n1
    python -m ul train --config ablations:normal_prior_base \\
        --workdir runs/n2 --config.stage1.workdir=runs/n1

The first command trains and evaluates them and four baselines that the paper does not
tabulate, `kl_autoencoder` and the variants of single_stage.py, and prints both tables. Each
name but diffusion_decoder is a stage 1, each with `_base` a stage 2 on its latents:

  ul                the reference: stage 1 of digits.py
  normal_prior      the rate is the KL to N(0, I); no prior is learned
  mse_decoder       a decoder of one call with a squared error
  diffusion_decoder a diffusion decoder on the frozen encoder of mse_decoder, no stage 2
  learned_variance  the encoder learns the variance of its latents (ablation D)
  detached_prior    the prior's loss does not reach the encoder, which has a KL instead (A)
  logsnr_10         the prior's maximum log-SNR is 10 instead of 5 (B)
  kl_autoencoder    the autoencoder of latent diffusion, with a tenth of the KL

Every stage trains for 1,000 steps of 32 digits. Expected for `ul`: 0.861 bits/pixel, PSNR 21.7
dB and a class accuracy of 0.68 (RESULTS.md); 4 to 9 minutes per name on two shared cores.
"""

import ml_collections

from experiments import common, digits

# For Gaussian data, factor 2 and bias 4 lead to the posterior precision 1 x e^4
# (ul/README.md, equation 9).
PRECISION = 54.6


def get_config(arg: str = "ul") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    if arg.endswith("_base"):
        c = digits.get_config("stage2").unlock()
        # Two schedules have logsnr_max = 10, where the rounding error of float16 would not
        # be negligible beside the noise.
        c.latent_dtype = "float32"
        changes = _STAGE2_CHANGES.get(arg.removesuffix("_base"))
    elif arg == "diffusion_decoder":
        c, changes = digits.get_config("decoder").unlock(), None
    else:
        c = digits.get_config("stage1").unlock()
        c.loss.ramp_steps, changes = 400, _STAGE1_CHANGES.get(arg)
    if changes:
        changes(c)
    c.steps, c.batch_size, c.validation.every = 1000, 32, 1000
    return c.lock()


def _change_stage(c, stage: str, removed: tuple[str, ...] = (), **sections) -> None:
    """Turn a config into one of another `stage`: remove and set sections."""
    for name in removed:
        del c[name]
    c.stage = stage
    c.update(sections)


def _normal_prior(c) -> None:
    _change_stage(c, "normal_prior", ("prior", "prior_schedule"), latent_logsnr=5.0)


def _mse_decoder(c) -> None:
    loss = dict(precision=PRECISION, ramp_steps=400, rate_floor_bpp=0.05)
    _change_stage(c, "mse_decoder", ("decoder_schedule", "loss"), loss=loss)


def _learned_variance(c) -> None:
    _change_stage(c, "learned_variance")


def _detached_prior(c) -> None:
    """Use fewer channels, as the paper does (8 of 32): only the KL limits the rate."""
    loss = dict(
        weighting=dict(kind="sigmoid", factor=2.0, bias=4.0),
        kl_weight=0.1,
        rate_floor_bpp=0.05,
    )
    _change_stage(c, "detached_prior", ("loss",), loss=loss)
    c.encoder.latent_channels = 2


def _logsnr_10(c) -> None:
    c.prior_schedule.logsnr_max = 10.0


def _kl_autoencoder(c) -> None:
    """Weight the KL with 0.1, which acts as ten times the precision."""
    removed = ("prior", "prior_schedule", "decoder_schedule", "loss")
    loss = dict(precision=PRECISION, kl_weight=0.1, rate_floor_bpp=0.05)
    _change_stage(c, "kl_autoencoder", removed, loss=loss, latent_logsnr=10.0)


def _base_with_two_channels(c) -> None:
    c.latent_shape = (4, 4, 2)


def _base_with_logsnr_10(c) -> None:
    c.schedule.logsnr_max = 10.0
    c.guidance.logsnr_high = 10.0


_STAGE1_CHANGES = {
    "normal_prior": _normal_prior,
    "mse_decoder": _mse_decoder,
    "learned_variance": _learned_variance,
    "detached_prior": _detached_prior,
    "logsnr_10": _logsnr_10,
    "kl_autoencoder": _kl_autoencoder,
}
_STAGE2_CHANGES = {
    "detached_prior": _base_with_two_channels,
    "logsnr_10": _base_with_logsnr_10,
    "kl_autoencoder": _base_with_logsnr_10,
}

KINDS = ("ul", *_STAGE1_CHANGES)
VARIANTS = (*KINDS, "diffusion_decoder", *(f"{name}_base" for name in KINDS))
