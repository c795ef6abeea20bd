"""Samples of decoders of Gaussian images beside the exact posterior of x given z_0.

    python -m tests.bench.gaussian_posterior runs/g1 runs/student

Images and latents are jointly Gaussian if the encoder is linear, as it is for these data,
so the posterior follows from their covariance.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import ul
from ul.data import pipeline
from ul.inference.models import seed_key

NUM_IMAGES, NUM_LATENTS, NUM_DRAWS = 20_000, 512, 24


def measure(workdir: str) -> tuple[float, float]:
    """Return the ratio of conditional variances, and the error of the conditional mean.

    The error is a root mean square in exact conditional standard deviations.
    """
    autoencoder = ul.load_autoencoder(workdir)
    codec, row = autoencoder.codec, np.arange(NUM_IMAGES)
    examples = autoencoder.datasets.unaugmented_train
    image = pipeline.make_batch(examples, row, row, NUM_IMAGES)["image"]
    z = jnp.asarray(autoencoder.encode(image))
    z_0 = codec.add_noise(z, jnp.asarray(row), seed_key(0))
    x = image.reshape(NUM_IMAGES, -1) / 127.5 - 1.0
    flat = np.asarray(z_0, np.float64).reshape(NUM_IMAGES, -1)
    size = x.shape[1]
    both = np.cov(np.hstack([x, flat]).T)
    gain = both[:size, size:] @ np.linalg.pinv(both[size:, size:])
    variance = np.trace(both[:size, :size] - gain @ both[size:, :size])
    mean = x.mean(0) + (flat[:NUM_LATENTS] - flat.mean(0)) @ gain.T

    @jax.jit
    def decode(z_0, row, key):
        return codec.decoder(autoencoder.params, z_0, row, key)

    given = z_0[:NUM_LATENTS], jnp.arange(NUM_LATENTS)
    draws = [decode(*given, seed_key(1 + i)) for i in range(NUM_DRAWS)]
    samples = np.asarray(draws, np.float64).reshape(NUM_DRAWS, NUM_LATENTS, size)
    sampled = samples.var(0, ddof=1).mean(0).sum()
    squared = np.square(samples.mean(0) - mean).mean(0).sum() - sampled / NUM_DRAWS
    return sampled / variance, np.sqrt(max(squared, 0.0) / variance)


if __name__ == "__main__":
    for workdir in sys.argv[1:]:
        ratio, error = measure(workdir)
        sys.stdout.write(f"{workdir}: variance ratio {ratio:.3f}, error {error:.3f}\n")
