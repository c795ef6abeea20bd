"""A diffusion decoder on the latents of a frozen encoder: the decoder's part of stage 1."""

from collections.abc import Callable

from ul.core import arrays
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import add_encoder_noise, decoder_nats
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def decoder_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_image: Callable,
    latent_logsnr: float,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
) -> Terms:
    """Return L_x of each image given its latent (ul/README.md, equations 3 and 4).

    The batch holds `image` and the frozen encoder's `z_clean`.
    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat. latent_logsnr: the log-SNR of
    z_0, that of the encoder's fixed noise.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_0 = add_encoder_noise(batch["z_clean"], noise, latent_logsnr)

    def denoise_x(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, noise.dropout_key())

    nats = decoder_nats(denoise_x, x, noise, decoder_schedule, decoder_weight)
    stats = latent_stats(batch["z_clean"])
    return Terms(loss=nats, nats={"decoder": nats}, stats=stats)
