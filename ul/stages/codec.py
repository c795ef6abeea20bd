"""Images to latents and back, and conditions to latents, as functions of parameters.

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
from ul.objectives import conditions
from ul.objectives.conditions import Null

jit_method = functools.partial(jax.jit, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which sampler and how many network evaluations."""

    method: str
    num_steps: int


@dataclasses.dataclass(frozen=True)
class Codec:
    """Encoder and decoder of a stage 1.

    encoder(params, x) -> z_clean: deterministic, an own variance's mean.
    latent(params, x, row, key) -> z_clean, or a draw where the encoder has a variance.
    decoder(params, z_0, row, key) -> x, -1..1: the whole sampler where it is a diffusion.
    latent_logsnr: of the noise that z_0 has and z_clean has not.
    sampled: the decoder samples from the posterior; else it gives one mean.
    exact: the encoder has no variance of its own.
    """

    encoder: Callable
    latent: Callable
    decoder: Callable
    latent_logsnr: float
    image_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    sampled: bool
    exact: bool

    @jit_method
    def encode(self, params, image):
        """uint8 [B, *grid, C] to z_clean float32 [B, *g, c]; deterministic."""
        return self.encoder(params, arrays.to_unit(image)).astype(jnp.float32)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def encode_context(self, params, image, frames: int):
        """The first frames of clips uint8 [B, t, H, W, C], t >= frames, as a latent.

        Encoded as a clip whose last given frame stands still: nothing later is seen.
        """
        rest = self.image_shape[0] - frames
        held = jnp.repeat(image[:, frames - 1 : frames], rest, axis=1)
        return self.encode(params, jnp.concatenate([image[:, :frames], held], axis=1))

    @jit_method
    def latents(self, params, image, row, key):
        """uint8 [B, H, W, C] to what a base model learns: with the encoder's variance."""
        z = self.latent(params, arrays.to_unit(image), row, key)
        return z.astype(jnp.float32)

    @jit_method
    def add_noise(self, z_clean, row, key):
        """z_clean to z_0: the encoder's noise, at the prior's logsnr_max."""
        eps = rng.normal(rng.stream(key, "encoder_noise"), row, self.latent_shape)
        return gaussian.corrupt(z_clean, eps, self.latent_logsnr)

    @jit_method
    def decode(self, params, z_0, row, key):
        """The noisy z_0 to uint8 images."""
        return arrays.to_uint8(self.decoder(params, z_0, row, key))

    @jit_method
    def reconstruct(self, params, image, row, key):
        """Encode, add the encoder's noise, decode."""
        z = self.latents(params, image, row, key)
        return self.decode(params, self.add_noise(z, row, key), row, key)


def normal(encode: Callable) -> Callable:
    """`latent` of an encoder `encode(params, x) -> (mean, log variance)`."""

    def latent(params, x, row, key):
        mean, log_variance = encode(params, x)
        eps = rng.normal(rng.stream(key, "encoder_variance"), row, mean.shape[1:])
        return mean + jnp.exp(log_variance / 2.0) * eps

    return latent


def sample_image(
    denoise_image: Callable,
    params,
    z_0,
    row,
    key,
    *,
    schedule: Schedule,
    sampling: Sampling,
    image_shape: tuple[int, ...],
):
    """The diffusion decoder: its whole sampler from fresh noise; x in -1..1.

    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat.
    """

    def denoise(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, None)

    end = samplers.sample(
        denoise,
        image_shape,
        row,
        rng.stream(key, "decoder"),
        schedule=schedule,
        method=sampling.method,
        num_steps=sampling.num_steps,
    )
    return denoise(end, jnp.full(row.shape, schedule.logsnr_max, jnp.float32))


@dataclasses.dataclass(frozen=True)
class LatentSampler:
    """The base model of stage 2 as a sampler of noisy z_0.

    denoise_guide: of a lesser model, what guidance leads away from in place of this one
    without its condition (autoguidance, Karras et al., arXiv 2406.02507).
    """

    denoise_latent: Callable
    schedule: Schedule
    latent_shape: tuple[int, ...]
    null: Null = dataclasses.field(hash=False)
    interval: tuple[float, float]
    sampling: Sampling
    denoise_guide: Callable | None = None

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def sample(self, params, condition, row, key, scale: float, guide=None):
        """A condition of B rows to z_0 [B, *grid, c], noisy at the schedule's logsnr_max.

        `scale` is static: at 1 what guidance leads away from is never computed. `guide`:
        the parameters of `denoise_guide`.
        """

        def denoiser(network, params, given):
            return lambda z_t, logsnr: network(params, z_t, logsnr, given, None)

        denoise = denoiser(self.denoise_latent, params, condition)
        if scale != 1.0:
            if self.denoise_guide is None:
                nothing = conditions.nothing(condition, self.null)
                weaker = denoiser(self.denoise_latent, params, nothing)
            else:
                weaker = denoiser(self.denoise_guide, guide, condition)
            denoise = guidance.guided(denoise, weaker, scale, self.interval)
        return samplers.sample(
            denoise,
            self.latent_shape,
            row,
            rng.stream(key, "base"),
            schedule=self.schedule,
            method=self.sampling.method,
            num_steps=self.sampling.num_steps,
        )
