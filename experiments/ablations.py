"""The paper's ablations and baselines on digits, each one config: stage 1 and its base.

    python -m launch.ablations --out runs/ablations          # all of them, and the table
    python -m launch.train --config experiments/ablations.py:normal_prior --workdir runs/n1
    python -m launch.train --config experiments/ablations.py:normal_prior_base \\
        --workdir runs/n2 --config.stage1.workdir=runs/n1

`ul` is what all are compared with; `<name>_base` is a stage 2. Half the steps and half the
batch of digits.py: two or three minutes each on two cores; what they gave is in the README.
"""

import ml_collections

from experiments import common, digits

KINDS = (
    "ul",
    "normal_prior",
    "mse_decoder",
    "learned_variance",
    "detached_prior",
    "logsnr_10",
    "kl_autoencoder",
)
VARIANTS = KINDS + tuple(f"{name}_base" for name in KINDS)

# The posterior precision that factor 2 and bias 4 give Gaussian data: 1 x e^4.
PRECISION = 54.6


def get_config(arg: str = "ul") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    if arg.endswith("_base"):
        c = digits.get_config("stage2").unlock()
        c.steps = 1000
        # Some stop at logsnr 10, where rounding is not far below the noise.
        c.latent_dtype = "float32"
        changes = _BASES.get(arg.removesuffix("_base"))
    else:
        c = digits.get_config("stage1").unlock()
        c.steps, c.loss.ramp_steps = 1000, 400
        changes = _CHANGES.get(arg)
    if changes:
        changes(c)
    c.batch_size, c.validation.every = 32, c.steps
    return c.lock()


def _replace(c: ml_collections.ConfigDict, stage: str, without=(), **sections) -> None:
    """Another stage: some sections go, others come."""
    for name in without:
        del c[name]
    c.stage = stage
    c.update(sections)


def _normal_prior(c) -> None:
    _replace(c, "normal_prior", ("prior", "prior_schedule"), latent_logsnr=5.0)


def _mse_decoder(c) -> None:
    loss = dict(precision=PRECISION, ramp_steps=400, rate_floor_bpp=0.05)
    _replace(c, "mse_decoder", ("decoder_schedule", "loss"), loss=loss)


def _learned_variance(c) -> None:
    _replace(c, "learned_variance")


def _detached_prior(c) -> None:
    """A: fewer channels, as the paper has 8 of 32, for the KL alone limits the bits."""
    loss = dict(
        weighting=dict(kind="sigmoid", factor=2.0, bias=4.0),
        kl_weight=0.1,
        rate_floor_bpp=0.05,
    )
    _replace(c, "detached_prior", ("loss",), loss=loss)
    c.encoder.latent_channels = 2


def _logsnr_10(c) -> None:
    c.prior_schedule.logsnr_max = 10.0


def _kl_autoencoder(c) -> None:
    """A tenth of the KL, so ten times the precision; the base stops at logsnr 10."""
    gone = ("prior", "prior_schedule", "decoder_schedule", "loss")
    loss = dict(precision=PRECISION, kl_weight=0.1, rate_floor_bpp=0.05)
    _replace(c, "kl_autoencoder", gone, loss=loss, latent_logsnr=10.0)


def _base_of_two_channels(c) -> None:
    c.latent_shape = (4, 4, 2)


def _base_to_logsnr_10(c) -> None:
    c.schedule.logsnr_max = 10.0
    c.guidance.logsnr_high = 10.0


_CHANGES = {
    "normal_prior": _normal_prior,
    "mse_decoder": _mse_decoder,
    "learned_variance": _learned_variance,
    "detached_prior": _detached_prior,
    "logsnr_10": _logsnr_10,
    "kl_autoencoder": _kl_autoencoder,
}
_BASES = {
    "detached_prior": _base_of_two_channels,
    "logsnr_10": _base_to_logsnr_10,
    "kl_autoencoder": _base_to_logsnr_10,
}
