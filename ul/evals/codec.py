"""Images to latents and back, and labels to latents, as functions of parameters.

Every example draws from a key and its own row number, so a result does not depend on
how examples were batched.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core import arrays, rng
from ul.diffusion import gaussian, guidance, samplers
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import Networks

jit_method = functools.partial(jax.jit, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which sampler and how many network evaluations."""

    method: str
    num_steps: int


@dataclasses.dataclass(frozen=True)
class Codec:
    """Encoder and decoder of stage 1."""

    networks: Networks
    prior_schedule: Schedule
    decoder_schedule: Schedule
    image_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]
    sampling: Sampling

    @jit_method
    def encode(self, params, image):
        """uint8 [B, H, W, C] to z_clean float32 [B, h, w, c]; deterministic."""
        return self.networks.encode(params, arrays.to_unit(image)).astype(jnp.float32)

    @jit_method
    def add_noise(self, z_clean, row, key):
        """z_clean to z_0: the encoder's noise, at the prior's logsnr_max."""
        eps = rng.normal(rng.stream(key, "encoder_noise"), row, self.latent_shape)
        return gaussian.corrupt(z_clean, eps, self.prior_schedule.logsnr_max)

    @jit_method
    def decode(self, params, z_0, row, key):
        """The noisy z_0 to uint8 images: the whole decoder sampler, from fresh noise."""

        def denoise(x_t, logsnr):
            return self.networks.denoise_image(params, x_t, logsnr, z_0, None)

        end = samplers.sample(
            denoise,
            self.image_shape,
            row,
            rng.stream(key, "decoder"),
            schedule=self.decoder_schedule,
            method=self.sampling.method,
            num_steps=self.sampling.num_steps,
        )
        last = jnp.full(row.shape, self.decoder_schedule.logsnr_max, jnp.float32)
        return arrays.to_uint8(denoise(end, last))

    @jit_method
    def reconstruct(self, params, image, row, key):
        """Encode, add the encoder's noise, sample the decoder."""
        z_0 = self.add_noise(self.encode(params, image), row, key)
        return self.decode(params, z_0, row, key)


@dataclasses.dataclass(frozen=True)
class LatentSampler:
    """The base model of stage 2 as a sampler of noisy z_0."""

    denoise_latent: Callable
    schedule: Schedule
    latent_shape: tuple[int, int, int]
    null_label: int
    interval: tuple[float, float]
    sampling: Sampling

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def sample(self, params, label, row, key, scale: float):
        """label int32 [B] to z_0 [B, h, w, c], noisy at the schedule's logsnr_max.

        `scale` is static: at 1 the unconditional half is never computed.
        """

        def denoiser(label):
            return lambda z_t, logsnr: self.denoise_latent(
                params, z_t, logsnr, label, None
            )

        denoise = denoiser(label)
        if scale != 1.0:
            null = jnp.full_like(label, self.null_label)
            denoise = guidance.classifier_free(
                denoise, denoiser(null), scale, self.interval
            )
        return samplers.sample(
            denoise,
            self.latent_shape,
            row,
            rng.stream(key, "base"),
            schedule=self.schedule,
            method=self.sampling.method,
            num_steps=self.sampling.num_steps,
        )
