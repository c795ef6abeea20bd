"""Compare samplers and grids on a trained run, by their distance to the converged flow.

PSNR is no criterion: it rises with the error of a sampler, because samples then shrink
towards the mean of the posterior.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ul.core import arrays, markdown
from ul.core.errors import ConfigError
from ul.data import datasets as examples_of
from ul.data.datasets import Datasets
from ul.diffusion import gaussian
from ul.diffusion.samplers import CORRECTIONS, METHODS, STOCHASTIC, Sampler
from ul.diffusion.sampling_grids import GRIDS, Adaptive, EvenInTime, Grid
from ul.inference import api, rates
from ul.inference import weights as saved_weights
from ul.inference.models import Autoencoder, Generator, seed_key
from ul.metrics import frechet, logsnr_curve
from ul.metrics.features import pixels
from ul.stages.codec import DiffusionDecoder

# A method of second order with this many steps stands for the exact flow.
CONVERGED_STEPS = 400
DEFAULT_PAIRS = (
    "schedule:ddim",
    "schedule:dpmpp_2m",
    "logsnr:ddim",
    "logsnr:dpmpp_2m",
    "logsnr:heun",
    "logsnr:dpmpp_2m_sde",
    "adaptive:dpmpp_2m",
)


@dataclasses.dataclass(frozen=True)
class ComparedSampler:
    """A sampler with its errors.

    calls: evaluations of the network for one sample, with the decoder's last one.
    distance: root mean square of the difference to the converged flow from the same noise;
      None for a sampler with noise of its own. Of a decoder in 8-bit levels, of a base
      model in units of the standard deviation of the noise in z_0.
    spread: standard deviation of x given z_0 over that of the converged flow, 1 at best;
      None for a base model.
    frechet: Frechet distance of 8x8 block means to the real images.
    """

    pair: str
    num_steps: int
    calls: int
    distance: float | None
    spread: float | None
    frechet: float


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples of one sampler: floats to compare, images, and optionally a second draw."""

    values: np.ndarray
    images: np.ndarray
    second: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SamplerComparison:
    """The compared samplers of a run, and its curve for an adaptive grid.

    unit: the unit of the distances.
    """

    rows: list[ComparedSampler]
    curve: tuple[float, ...]
    unit: str


def compare(
    workdir: str,
    pairs: Sequence[str],
    calls: Sequence[int],
    *,
    num_examples: int = 180,
    guidance: float = 1.0,
    step: int | None = None,
    weights: str = "ema",
    seed: int = 0,
) -> SamplerComparison:
    """Compare samplers of the decoder of a stage 1, or of the base model of a stage 2.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; an unknown pair; a decoder
        of one call.
    """
    parse_pairs(pairs)
    if saved_weights.load_run(workdir).stage.is_autoencoder:
        ae = api.load_autoencoder(workdir, step=step, weights=weights)
        images = _held_out(ae.datasets, num_examples)["image"]
        curve = decoder_curve(ae, images, seed)
        rows = compare_decoders(ae, images, pairs, calls, curve=curve, seed=seed)
        return SamplerComparison(rows, curve, "8-bit levels")
    gen = api.load_generator(workdir, step=step, weights=weights)
    batch = _held_out(gen.datasets, num_examples)
    condition = {name: batch[name] for name in gen.stage.conditions.names}
    curve = base_curve(gen, batch["image"], condition, seed)
    rows = compare_base_samplers(
        gen,
        batch["image"],
        condition,
        pairs,
        calls,
        curve=curve,
        guidance=guidance,
        seed=seed,
    )
    return SamplerComparison(rows, curve, "standard deviations of the noise in z_0")


def to_markdown(comparison: SamplerComparison) -> str:
    """Return the table of a comparison, with the unit of the distance."""
    header = ["grid:kind", "steps", "network calls", "distance to the flow"]
    rows = [[*header, "spread", "Frechet (pixels_8x8)"]]
    for r in comparison.rows:
        numbers = (r.distance, r.spread, r.frechet)
        cells = ["" if v is None else f"{v:.3f}" for v in numbers]
        rows.append([r.pair, str(r.num_steps), str(r.calls), *cells])
    return (
        markdown.table(rows, align_right=True)
        + f"\n\nThe distance is in {comparison.unit}, from the same noise. The spread is that "
        "of x given z_0,\nrelative to the converged flow. PSNR is left out: it rises with the "
        "error of a sampler."
    )


def _held_out(datasets: Datasets, count: int) -> dict[str, np.ndarray]:
    """Return the first held-out examples."""
    examples = datasets.eval
    return examples_of.read(examples, list(range(min(count, len(examples)))))


def parse_pairs(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of a grid and a method from texts such as logsnr:dpmpp_2m.

    Raises:
      ConfigError: a name is unknown.
    """
    parsed = [tuple(pair.split(":")) for pair in pairs]
    for pair in parsed:
        if len(pair) != 2 or pair[0] not in GRIDS or pair[1] not in METHODS:
            raise ConfigError(
                f"--samplers must be pairs GRID:KIND with a grid of {sorted(GRIDS)} and a "
                f"kind of {sorted(METHODS)}; got {':'.join(pair)}."
            )
    return parsed  # type: ignore[return-value]


def decoder_of(autoencoder: Autoencoder) -> DiffusionDecoder:
    """Return the diffusion decoder of an autoencoder.

    Raises:
      ConfigError: its decoder is a single call.
    """
    decoder = autoencoder.codec.decoder
    if not isinstance(decoder, DiffusionDecoder):
        raise ConfigError(
            "The decoder must be a diffusion model, because others have no sampler; the run "
            f"is of stage {autoencoder.stage.name!r}."
        )
    return decoder


def decoder_curve(autoencoder: Autoencoder, images: np.ndarray, seed: int) -> tuple:
    """Return the decoder's bits per log-SNR in `logsnr_curve.NUM_BINS` bins, as a mean."""
    decoder, codec = decoder_of(autoencoder), autoencoder.codec
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

    nats = autoencoder.map_rows("", measure, **_rows(images))
    return tuple(float(v) for v in nats.mean(0))


def base_curve(generator: Generator, images: np.ndarray, condition, seed: int) -> tuple:
    """Return the base model's bits per log-SNR, as `decoder_curve`."""
    ae, key = generator.autoencoder, seed_key(seed)
    denoise_latent = generator.sampler.denoise_latent

    @jax.jit
    def measure(image, row, **condition):
        z = ae.codec.latents(ae.params, image, row, key)

        def denoise(z_t, logsnr):
            return denoise_latent(generator.params, z_t, logsnr, condition, None)

        schedule = generator.sampler.schedule
        return logsnr_curve.nats_per_logsnr(denoise, z, row, key, schedule)

    nats = ae.map_rows("", measure, **_rows(images), **condition)
    return tuple(float(v) for v in nats.mean(0))


def compare_decoders(
    autoencoder: Autoencoder,
    images: np.ndarray,
    pairs: Sequence[str],
    calls: Sequence[int],
    *,
    curve: tuple[float, ...],
    seed: int = 0,
) -> list[ComparedSampler]:
    """Compare samplers of the decoder on the latents of `images`, uint8 [N, H, W, C].

    calls: the numbers of network calls to try; a method that cannot spend one exactly
    spends less.

    Raises:
      ConfigError: an unknown pair, or a decoder of one call.
    """
    codec, decoder = autoencoder.codec, decoder_of(autoencoder)
    keys = [seed_key(seed), seed_key(seed + 1)]

    def draw(sampler: Sampler) -> Sampled:
        sampling = dataclasses.replace(decoder, sampler=sampler)

        @jax.jit
        def decode(image, row, key):
            z = codec.latents(autoencoder.params, image, row, keys[0])
            z_0 = codec.add_noise(z, row, keys[0])
            return sampling(autoencoder.params, z_0, row, key)

        def decode_all(key):
            x = autoencoder.map_rows(
                "", lambda image, row: decode(image, row, key), **_rows(images)
            )
            return np.clip(x, -1.0, 1.0)

        first, second = map(decode_all, keys)
        return Sampled(
            first * 127.5,
            np.asarray(arrays.to_uint8(jnp.asarray(first))),
            second * 127.5,
        )

    return _compare(draw, decoder.sampler, pairs, calls, curve, images, last_call=1)


def compare_base_samplers(
    generator: Generator,
    images: np.ndarray,
    condition: dict[str, np.ndarray],
    pairs: Sequence[str],
    calls: Sequence[int],
    *,
    curve: tuple[float, ...],
    guidance: float = 1.0,
    seed: int = 0,
) -> list[ComparedSampler]:
    """Compare samplers of the base model for the conditions of N samples.

    images: real images, to which the Frechet distance is measured. Arguments and errors
    are otherwise those of `compare_decoders`.
    """
    latents = generator.sampler
    noise_std = float(gaussian.sigma(latents.schedule.logsnr_max))

    def draw(sampler: Sampler) -> Sampled:
        sampling = dataclasses.replace(latents, sampler=sampler)
        other = dataclasses.replace(generator, sampler=sampling)
        z_0 = other.sample_latents(condition, guidance=guidance, seed=seed)
        decoded = generator.autoencoder.decode(z_0, noisy=True, seed=seed)
        return Sampled(z_0 / noise_std, decoded)

    return _compare(draw, latents.sampler, pairs, calls, curve, images, last_call=0)


def _compare(
    draw: Callable[[Sampler], Sampled],
    own: Sampler,
    pairs: Sequence[str],
    calls: Sequence[int],
    curve: tuple[float, ...],
    images: np.ndarray,
    *,
    last_call: int,
) -> list[ComparedSampler]:
    real = frechet.fit_gaussian(pixels.features(images))
    parsed = parse_pairs(pairs)
    exact = Sampler("dpmpp_2m", CONVERGED_STEPS, own.schedule, GRIDS["logsnr"]())
    candidates = [
        (pair, candidate)
        for pair, (grid, method) in zip(pairs, parsed, strict=True)
        for count in calls
        if (candidate := _candidate(own, grid, method, count - last_call, curve))
    ]
    progress = tqdm([("exact", exact), *candidates], unit="sampler", dynamic_ncols=True)
    converged, rows = None, []
    for pair, sampler in progress:
        progress.set_description(f"{pair} {sampler.num_steps}")
        sampled = draw(sampler)
        converged = converged or sampled
        rows.append(
            ComparedSampler(
                pair=pair,
                num_steps=sampler.num_steps,
                calls=sampler.calls + last_call,
                distance=None
                if sampler.method in STOCHASTIC
                else _rms(sampled.values - converged.values),
                spread=_spread(sampled, converged),
                frechet=frechet.distance(
                    frechet.fit_gaussian(pixels.features(sampled.images)), real
                ),
            )
        )
    return rows


def _candidate(
    own: Sampler, grid: str, method: str, calls: int, curve: tuple[float, ...]
) -> Sampler | None:
    """Return the sampler that spends `calls`, or None if they are less than one step."""
    num_steps = calls // (2 if method in CORRECTIONS else 1)
    if num_steps < 1:
        return None
    built: Grid = GRIDS[grid](own.grid.logsnr_max, own.grid.logsnr_min)
    if isinstance(built, EvenInTime):
        built = EvenInTime()
    elif isinstance(built, Adaptive):
        built = dataclasses.replace(built, curve=curve)
    return Sampler(method, num_steps, own.schedule, built)


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _spread(sampled: Sampled, converged: Sampled) -> float | None:
    if sampled.second is None or converged.second is None:
        return None
    return _rms(sampled.values - sampled.second) / _rms(
        converged.values - converged.second
    )


def _rows(images: np.ndarray) -> dict[str, Any]:
    rows = rates.numbered(images, 0, len(images))
    return {name: rows[name] for name in ("image", "row")}
