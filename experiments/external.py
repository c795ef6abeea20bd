"""A base model on the latents of another's autoencoder: what the paper compares with.

    python -m launch.import_autoencoder --config experiments/external.py:autoencoder \\
        --weights vae.safetensors --vae_config config.json --workdir runs/sd_vae
    python -m launch.evaluate --workdir runs/sd_vae
    python -m launch.train --config experiments/external.py:stage2 --workdir runs/sd_base \\
        --config.stage1.workdir=runs/sd_vae

`autoencoder`: the sizes of Stable Diffusion 1 and 2 on ImageNet at 256x256, latents 32x32x4
of scale 0.18215; `stage2`: the base of imagenet512.py on them, from log-SNR 10 down. SDXL has
scale 0.13025; Stable Diffusion 3 and FLUX 16 channels without the 1x1 convolutions, scale
1.5305 and 0.3611, shift 0.0609 and 0.1159: --vae_config says so, and --config.latent_shape.
Never run: no public weights were at hand. `tiny` and `smoke2` touch every part in seconds.
"""

import ml_collections

from experiments import common, imagenet512, photos

VARIANTS = ("autoencoder", "stage2", "tiny", "smoke2")
LOGSNR = 10.0


def get_config(arg: str = "autoencoder") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    make = {
        "autoencoder": _autoencoder,
        "stage2": _stage2,
        "tiny": _tiny,
        "smoke2": _smoke2,
    }
    return make[arg]().lock()


def _external(like: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The data and the evaluation of another config."""
    c = ml_collections.ConfigDict()
    c.stage, c.seed, c.dtype = "external", 0, "float32"
    c.data, c.eval = like.data, like.eval
    c.scale, c.shift, c.latent_logsnr = 0.18215, 0.0, LOGSNR
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
    """Two halvings, few channels; as Stable Diffusion 3 has it, with a shift."""
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
    return _to_logsnr(c)


def _smoke2() -> ml_collections.ConfigDict:
    c = photos.get_config("smoke2").unlock()
    c.latent_shape = (8, 8, 4)
    return _to_logsnr(c)


def _to_logsnr(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Weights that saw no noise: the base goes further down than to UL's 5, and there
    float16 is not far below its noise."""
    c.schedule.logsnr_max, c.latent_dtype = LOGSNR, "float32"
    return c
