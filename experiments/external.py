"""A stage 2 on the latents of a Stable-Diffusion-style KL autoencoder, a baseline of the paper.

    python -m ul import_autoencoder --config external:autoencoder \\
        --weights vae.safetensors --vae_config config.json --workdir runs/sd_vae \\
        --config.data.source.path=/data/imagenet256
    python -m ul evaluate --workdir runs/sd_vae
    python -m ul train --config external:stage2 --workdir runs/sd_base \\
        --config.data.source.path=/data/imagenet256 --config.stage1.workdir=runs/sd_vae

The images are ImageNet at 256x256, written by `ul import_images --size 256`.
`autoencoder` has the sizes of Stable Diffusion 1 and 2: latents of 32x32x4 with scale
0.18215. `stage2` is the base model of imagenet512.py on these latents, with a schedule whose
`logsnr_max` is 10. For other autoencoders `--vae_config` sets sizes, scale and shift, and
stage 2 needs their `--config.latent_shape`: SDXL has scale 0.13025; Stable Diffusion 3 and
FLUX have 16 channels, no 1x1 convolutions, scales 1.5305 and 0.3611, and shifts 0.0609 and
0.1159. `tiny` and `smoke2` are an autoencoder and a stage 2 with tiny networks on
photographs, for tests that take seconds.

Status: never run with public weights, because none were available.
"""

import ml_collections

from experiments import common, imagenet512, photos

VARIANTS = ("autoencoder", "stage2", "tiny", "smoke2")
LATENT_LOGSNR = 10.0


def get_config(arg: str = "autoencoder") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    functions = {
        "autoencoder": _autoencoder,
        "stage2": _stage2,
        "tiny": _tiny,
        "smoke2": _smoke2,
    }
    return functions[arg]().lock()


def _external(stage2: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the config of an imported autoencoder, with the data of its stage 2."""
    c = ml_collections.ConfigDict()
    c.stage, c.seed, c.dtype = "external", 0, "float32"
    c.data, c.eval = stage2.data, stage2.eval
    c.scale, c.shift, c.latent_logsnr = 0.18215, 0.0, LATENT_LOGSNR
    return c


def _autoencoder() -> ml_collections.ConfigDict:
    c = _external(_stage2())
    c.networks = dict(
        channels=(128, 256, 512, 512),
        blocks=2,
        latent_channels=4,
        groups=32,
        attention=True,
        quant_conv=True,
        post_quant_conv=True,
    )
    return c


def _tiny() -> ml_collections.ConfigDict:
    """Return a small autoencoder like that of Stable Diffusion 3: with a shift."""
    c = _external(photos.get_config("smoke2"))
    c.networks = dict(
        channels=(16, 16, 32),
        blocks=1,
        latent_channels=4,
        groups=8,
        attention=True,
        quant_conv=False,
        post_quant_conv=False,
    )
    c.shift = 0.1
    return c


def _stage2() -> ml_collections.ConfigDict:
    c = imagenet512.get_config("stage2").unlock()
    c.data.image_shape = (256, 256, 3)
    c.latent_shape = (32, 32, 4)
    return _extend_schedule(c)


def _smoke2() -> ml_collections.ConfigDict:
    c = photos.get_config("smoke2").unlock()
    c.latent_shape = (8, 8, 4)
    return _extend_schedule(c)


def _extend_schedule(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Raise the schedule's `logsnr_max` above UL's 5, to a lower noise level.

    The decoder was trained without noise. At this noise level the rounding error of float16
    is not negligible, so latents stay in float32.
    """
    c.schedule.logsnr_max, c.latent_dtype = LATENT_LOGSNR, "float32"
    return c
