"""The information per unit of log-SNR of a run's denoiser, for adaptive sampling grids."""

from typing import Any

import jax
import numpy as np

from ul.core import arrays
from ul.inference import conditions, rates
from ul.inference.models import Autoencoder, Generator, seed_key
from ul.metrics import logsnr_curve
from ul.stages.codec import DiffusionDecoder


def decoder_nats_per_logsnr(
    autoencoder: Autoencoder, decoder: DiffusionDecoder, images: np.ndarray, seed: int
) -> tuple:
    """Return the decoder's nats per unit of log-SNR, `logsnr_curve.NUM_BINS` means."""
    codec = autoencoder.codec
    key = seed_key(seed)

    @jax.jit
    def measure(image, row):
        z = codec.latents(autoencoder.params, image, row, key)
        z_0 = codec.add_noise(z, row, key)

        def denoise(x_t, logsnr):
            return decoder.denoise_image(autoencoder.params, x_t, logsnr, z_0, None)

        x = arrays.scale_pixels(image)
        return logsnr_curve.nats_per_logsnr(
            denoise, x, row, key, decoder.sampler.schedule
        )

    nats = autoencoder.map_rows("", measure, **rows_of(images))
    return tuple(float(v) for v in nats.mean(0))


def base_nats_per_logsnr(
    generator: Generator, images: np.ndarray, condition, seed: int
) -> tuple:
    """Return the base model's nats per unit of log-SNR, as `decoder_nats_per_logsnr`."""
    ae, key = generator.autoencoder, seed_key(seed)
    denoise_latent = generator.sampler.denoise_latent

    @jax.jit
    def measure(image, row, **condition):
        z = ae.codec.latents(ae.params, image, row, key)

        def denoise(z_t, logsnr):
            return denoise_latent(generator.params, z_t, logsnr, condition, None)

        schedule = generator.sampler.schedule
        return logsnr_curve.nats_per_logsnr(denoise, z, row, key, schedule)

    validated = conditions.validate_conditions(
        generator.stage.conditions, condition, ae.encode_context
    )
    nats = ae.map_rows("", measure, **rows_of(images), **validated)
    return tuple(float(v) for v in nats.mean(0))


def rows_of(images: np.ndarray) -> dict[str, Any]:
    """Return images with their numbers as rows."""
    rows = rates.numbered(images, 0, len(images))
    return {name: rows[name] for name in ("image", "row")}
