"""Settings that most experiments share; each experiment sets what differs."""

import ml_collections
from ml_collections import config_dict

ConfigDict = ml_collections.ConfigDict


def check_variant(arg: str, variants: tuple[str, ...]) -> None:
    """Raise ValueError if `experiments/NAME.py:arg` names no variant of that file."""
    if arg not in variants:
        known = ", ".join(variants)
        raise ValueError(f"The variant must be one of {known}; got {arg!r}.")


def training_defaults(stage: str) -> ConfigDict:
    """Return a config of a `stage` with the settings of the training loop."""
    c = ConfigDict()
    c.stage = stage
    c.seed = 0
    c.accumulate = 1
    c.dtype = "float32"
    c.mesh = dict(data=-1, fsdp=1)
    c.log = dict(
        every=50,
        tensorboard=True,
        wandb=False,
        peak_tflops=config_dict.placeholder(float),
    )
    c.checkpoint = dict(
        every=1000, minutes=10.0, keep=2, keep_every=0, keep_minutes=0.0
    )
    c.watchdog = dict(
        start=1800.0,
        restore=1800.0,
        compile=3600.0,
        step=900.0,
        save=1800.0,
        evaluation=3600.0,
    )
    return c


def transformer_settings(head_dim: int) -> dict:
    """Return the settings of transformer blocks other than their number and width."""
    return dict(
        head_dim=head_dim, dropout=0.0, attention="auto", remat="none", scan=False
    )


def decoder_sampling(num_steps: int = 10) -> dict:
    """Return the sampling of a diffusion decoder.

    On digits and photographs DPM-Solver++(2M), uniform in log-SNR, was closer to the solution
    of the probability-flow ODE with 9 function evaluations than DDIM on the training schedule
    with 51 (RESULTS.md).
    """
    return latent_sampling(num_steps) | dict(logsnr_max=9.0, logsnr_min=-8.0)


def latent_sampling(num_steps: int = 16) -> dict:
    """Return the sampling of a base model, down to the noise of its latents."""
    return dict(
        kind="dpmpp_2m",
        num_steps=num_steps,
        grid="logsnr",
        logsnr_max=config_dict.placeholder(float),
        logsnr_min=config_dict.placeholder(float),
        nats_per_logsnr=(),
    )


def adamw(lr: float, warmup: int) -> dict:
    """Return AdamW for a few thousand steps; the learning rate decays to `lr` / 20."""
    return dict(
        lr=lr,
        warmup=warmup,
        final_fraction=0.05,
        b1=0.9,
        b2=0.99,
        weight_decay=0.01,
        clip=1.0,
        kind="adamw",
        schedule="cosine",
        decay_fraction=0.2,
    )


def shorten(c: ConfigDict, steps: int, sampling_steps: int) -> None:
    """Make a run a smoke test that trains, validates and saves within a few steps.

    The networks keep their sizes; the caller reduces them.
    """
    c.steps, c.batch_size = steps, 16
    c.log.every, c.checkpoint.every = 2, 4
    c.validation = dict(every=4, num_images=4, num_examples=16)
    c.eval = dict(batch_size=16, num_examples=16, num_draws=2)
    c.sampling.num_steps = sampling_steps


def shrink_networks(c: ConfigDict, width: int) -> None:
    """Reduce the networks of either stage to one block of `width` channels."""
    for name in ("prior", "base"):
        if name in c:
            c[name].widths, c[name].depths = (width,), (1,)
    if "decoder" in c:
        c.decoder.width, c.decoder.depth = width, 1
        c.decoder.channels = (16,)
    if "encoder" in c:
        c.encoder.channels, c.encoder.blocks = (16, 16), (1, 1)
