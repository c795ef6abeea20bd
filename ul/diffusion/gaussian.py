"""The forward process q(z_t | x) = N(alpha x, sigma^2 I) and its posteriors."""

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked


def expand(value, like):
    """Reshape [B] to [B, 1, ..., 1] with the rank of `like`; a scalar stays a scalar."""
    value = jnp.asarray(value)
    return value.reshape(value.shape + (1,) * (like.ndim - 1)) if value.ndim else value


def sum_elements(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Sum over the elements of each example, in float32; a loss is never a mean."""
    return jnp.sum(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def alpha(logsnr):
    """Return the signal scale, sqrt(sigmoid(logsnr))."""
    return jnp.sqrt(jax.nn.sigmoid(logsnr))


def sigma(logsnr):
    """Return the noise scale, sqrt(sigmoid(-logsnr))."""
    return jnp.sqrt(jax.nn.sigmoid(-logsnr))


@typechecked
def corrupt(
    x: Float[Array, "B ..."], eps: Float[Array, "B ..."], logsnr
) -> Float[Array, "B ..."]:
    """Return z_t = alpha x + sigma eps; `logsnr` is [B] or a scalar."""
    logsnr = expand(logsnr, x)
    return alpha(logsnr) * x + sigma(logsnr) * eps


@typechecked
def posterior(
    z_t: Float[Array, "B ..."], x: Float[Array, "B ..."], logsnr_t, logsnr_s
) -> tuple[Float[Array, "B ..."], Float[Array, "..."]]:
    """Return the mean and variance of q(z_s | z_t, x), s < t.

    c = 1 - exp(logsnr_t - logsnr_s); mean = alpha_s ((1 - c) z_t / alpha_t + c x),
    variance = sigma_s^2 c (Kingma et al., Variational Diffusion Models, appendix A).
    """
    logsnr_t, logsnr_s = expand(logsnr_t, z_t), expand(logsnr_s, z_t)
    c = -jnp.expm1(logsnr_t - logsnr_s)
    mean = alpha(logsnr_s) * ((1.0 - c) * z_t / alpha(logsnr_t) + c * x)
    return mean, jax.nn.sigmoid(-logsnr_s) * c


@typechecked
def kl_standard_normal(x: Float[Array, "B ..."], logsnr) -> Float[Array, " B"]:
    """Return KL[q(z_t | x) || N(0, I)] in nats; `logsnr` is [B] or a scalar.

    It is 1/2 sum(alpha^2 x^2 + sigma^2 - log sigma^2 - 1), computed with
    log sigma^2 = -softplus(logsnr) and sigma^2 - 1 = -alpha^2.
    """
    logsnr = expand(logsnr, x)
    elements = (
        jax.nn.sigmoid(logsnr) * (jnp.square(x) - 1.0) + jax.nn.softplus(logsnr)
    ) / 2.0
    return sum_elements(elements)


@typechecked
def kl_diagonal_normal(
    mean: Float[Array, "B ..."], log_variance: Float[Array, "B ..."]
) -> Float[Array, " B"]:
    """Return KL[N(mean, exp(log_variance)) || N(0, I)] in nats, summed over elements."""
    return sum_elements(
        (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0) / 2.0
    )
