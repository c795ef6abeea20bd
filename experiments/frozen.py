"""Settings of the stages that build on a frozen stage 1."""

import ml_collections
from ml_collections import config_dict

ConfigDict = ml_collections.ConfigDict
# The bias is stated for latents of variance 1. On digits and photographs -2 is no worse than
# the former biases for either seed; the differences are small (RESULTS.md).
BASE_BIAS = -2.0
# The interval is a little wider than the best one for EDM2, noise levels of 0.19 to 1.61 for
# data of standard deviation 0.5 (Kynkaanniemi et al., arXiv 2404.07724).
GUIDANCE_INTERVAL = dict(logsnr_low=-3.0, logsnr_high=3.0)


def saved_weights() -> dict:
    """Return a section that selects the weights of another run, by its `workdir`."""
    return dict(
        workdir=config_dict.placeholder(str),
        step=config_dict.placeholder(int),
        weights="ema",
    )


def make_decoder_stage(c: ConfigDict, shape: tuple[int, ...]) -> None:
    """Turn a stage 1 into a config of stage "decoder" for latents of this shape.

    The command line sets the run with the encoder, `stage1.workdir`, and optionally one
    whose decoder is trained further, `init.workdir`.
    """
    for name in ("encoder", "prior", "prior_schedule"):
        del c[name]
    c.stage, c.loss = "decoder", dict(weighting=c.loss.weighting)
    c.latent_shape, c.latent_logsnr = shape, 5.0
    c.stage1 = saved_weights()
    c.init = saved_weights() | dict(networks=("decoder",))


def make_distillation(c: ConfigDict, shape: tuple[int, ...], num_calls: int) -> None:
    """Turn a stage 1 into a config of stage "distill" for latents of this shape.

    The command line sets the run of the teacher, `stage1.workdir`.
    """
    ends = dict(logsnr_min=-8.0, logsnr_max=9.0)
    make_decoder_stage(c, shape)
    del c.loss, c.init
    c.stage = "distill"
    c.distillation = dict(
        kind="consistency", num_calls=num_calls, substeps=(4, 16), **ends
    )
    c.sampling = dict(kind="ddim", grid="logsnr", num_steps=num_calls, **ends)


def train_on_latents(c: ConfigDict, shape: tuple[int, ...]) -> None:
    """Add the settings of a stage 2 that trains on latents of this shape.

    The command line sets the stage-1 run, `stage1.workdir`, and optionally a cache that
    `ul encode` wrote, `latent_cache`.
    """
    c.stage1 = saved_weights()
    c.latent_cache = config_dict.placeholder(str)
    # Up to an absolute value of 4, the rounding error of float16 is below a hundredth of
    # the standard deviation of the noise in z_0.
    c.latent_shape, c.latent_dtype = shape, "float16"
    # Measured when the run starts.
    c.latent_variance = config_dict.placeholder(float)
