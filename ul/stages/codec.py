"""Encoding, decoding and sampling of latents, as functions of parameters.

Every example draws from a key and its own row number, so a result does not depend on
how examples were batched.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core import arrays, rng
from ul.diffusion import gaussian, guidance
from ul.diffusion.samplers import Sampler
from ul.diffusion.schedules import Schedule
from ul.objectives import conditions
from ul.objectives.conditions import NullValues

jit_method = functools.partial(jax.jit, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Codec:
    """Encoder and decoder of a stage 1.

    encoder(params, x) -> z_clean: deterministic; the mean of an encoder with variance.
    latent(params, x, row, key) -> z_clean, or a draw from an encoder with variance.
    decoder(params, z_0, row, key) -> x in -1..1; runs the whole sampler of a diffusion.
    latent_logsnr: log-SNR of the noise that is added to z_clean to make z_0.
    is_diffusion: the decoder samples from the posterior; otherwise it returns its mean.
    is_deterministic: the encoder has no variance of its own.
    """

    encoder: Callable
    latent: Callable
    decoder: Callable
    latent_logsnr: float
    image_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    is_diffusion: bool
    is_deterministic: bool

    @jit_method
    def encode(self, params, image):
        """Encode uint8 [B, *grid, C] to z_clean, float32 [B, *g, c], without noise."""
        return self.encoder(params, arrays.scale_pixels(image)).astype(jnp.float32)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def encode_context(self, params, image, frames: int):
        """Encode the first frames of clips, uint8 [B, t >= frames, H, W, C], as a latent.

        The last context frame is repeated up to the clip's length, so the encoder sees no
        later frame.
        """
        num_repeats = self.image_shape[0] - frames
        still = jnp.repeat(image[:, frames - 1 : frames], num_repeats, axis=1)
        return self.encode(params, jnp.concatenate([image[:, :frames], still], axis=1))

    @jit_method
    def latents(self, params, image, row, key):
        """Encode uint8 [B, *grid, C] to the latents that the base model is trained on.

        They include a sample of the encoder's variance if it has one.
        """
        z = self.latent(params, arrays.scale_pixels(image), row, key)
        return z.astype(jnp.float32)

    @jit_method
    def add_noise(self, z_clean, row, key):
        """Return z_0: z_clean with the encoder's noise, at `latent_logsnr`.

        z_clean and z_0 are [B, *g, c]; row is int32 [B].
        """
        eps = rng.normal(rng.stream(key, "encoder_noise"), row, self.latent_shape)
        return gaussian.corrupt(z_clean, eps, self.latent_logsnr)

    @jit_method
    def decode(self, params, z_0, row, key):
        """Decode the noisy z_0 to uint8 images [B, *grid, C]."""
        return arrays.to_uint8(self.decoder(params, z_0, row, key))

    @jit_method
    def reconstruct(self, params, image, row, key):
        """Encode images, add the encoder's noise and decode, uint8 to uint8."""
        z = self.latents(params, image, row, key)
        return self.decode(params, self.add_noise(z, row, key), row, key)


def normal_latent(encode: Callable) -> Callable:
    """Return `Codec.latent` for an encoder `encode(params, x) -> (mean, log variance)`."""

    def latent(params, x, row, key):
        mean, log_variance = encode(params, x)
        eps = rng.normal(rng.stream(key, "encoder_variance"), row, mean.shape[1:])
        return mean + jnp.exp(log_variance / 2.0) * eps

    return latent


@dataclasses.dataclass(frozen=True)
class DiffusionDecoder:
    """A decoder that samples x from z_0, as `Codec.decoder`.

    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat.
    """

    denoise_image: Callable
    sampler: Sampler
    image_shape: tuple[int, ...]

    def __call__(self, params, z_0, row, key, normal: Callable = rng.normal):
        """Run the whole sampler from fresh noise; return x [B, *grid, C] in -1..1.

        normal: as that of `samplers.sample`.
        """

        def denoise(x_t, logsnr):
            return self.denoise_image(params, x_t, logsnr, z_0, None)

        key = rng.stream(key, "decoder")
        x_0 = self.sampler(denoise, self.image_shape, row, key, normal)
        return denoise(x_0, jnp.full(row.shape, self.sampler.logsnr_max, jnp.float32))


@dataclasses.dataclass(frozen=True)
class LatentSampler:
    """The base model of stage 2 as a sampler of noisy z_0.

    denoise_latent(params, z_t, logsnr, condition, key) -> z_hat. null: the null value of
    each condition. interval: log-SNR range in which guidance acts.
    denoise_guiding: the denoiser of the guiding model of autoguidance (Karras et al.,
    arXiv 2406.02507). None means classifier-free guidance.
    """

    denoise_latent: Callable
    sampler: Sampler
    latent_shape: tuple[int, ...]
    null: NullValues = dataclasses.field(hash=False)
    interval: tuple[float, float]
    denoise_guiding: Callable | None = None

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def sample(self, params, condition, row, key, scale: float, guiding=None):
        """Sample z_0 [B, *g, c] for B rows of conditions, noisy at the maximum log-SNR.

        `scale` is static: at 1 the weaker denoiser of guidance is never computed.
        `guiding`: the parameters of `denoise_guiding`.
        """

        def denoiser(network, params, condition):
            return lambda z_t, logsnr: network(params, z_t, logsnr, condition, None)

        denoise = denoiser(self.denoise_latent, params, condition)
        if scale != 1.0:
            if self.denoise_guiding is None:
                null = conditions.null_like(condition, self.null)
                weaker = denoiser(self.denoise_latent, params, null)
            else:
                weaker = denoiser(self.denoise_guiding, guiding, condition)
            denoise = guidance.guide(denoise, weaker, scale, self.interval)
        return self.sampler(denoise, self.latent_shape, row, rng.stream(key, "base"))

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of training."""
        return self.sampler.schedule
