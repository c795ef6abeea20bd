"""Compare samplers by their distance to the solution of the probability-flow ODE.

The ODE is that of Song et al., arXiv 2011.13456. PSNR is no criterion: it rises with the
error of a sampler, because samples then shrink towards the mean of the posterior.
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
from ul.diffusion.sampling_grids import GRIDS, Adaptive, Grid, UniformTime
from ul.evaluation import prompts
from ul.inference import api, conditions, rates
from ul.inference import weights as saved_weights
from ul.inference.models import Autoencoder, Generator, seed_key
from ul.metrics import frechet, logsnr_curve
from ul.metrics.features import pixels
from ul.stages.codec import DiffusionDecoder

# DPM-Solver++(2M) with this many steps serves as the reference solution of the ODE.
REFERENCE_STEPS = 400
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
class SamplerErrors:
    """The errors of one sampler.

    nfe: function evaluations of the network for one sample, with the decoder's last one.
    distance: root mean square difference to the ODE solution from the same noise; None for
      stochastic samplers. In 8-bit levels for a decoder, in standard deviations of the
      noise in z_0 for a base model.
    std_ratio: standard deviation of x given z_0 divided by that of the reference; 1 is
      ideal. None for a base model.
    frechet: Frechet distance of 8x8 block means to the real images; None for clips and for
      sides that are not multiples of 8.
    """

    pair: str
    num_steps: int
    nfe: int
    distance: float | None
    std_ratio: float | None
    frechet: float | None


@dataclasses.dataclass(frozen=True)
class SamplerOutput:
    """Samples of one sampler: values to compare, uint8 images, and values of a second seed.

    Only decoders have a second seed.
    """

    values: np.ndarray
    images: np.ndarray
    second: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SamplerComparison:
    """The compared samplers of a run, and the measurement for an adaptive grid.

    unit: the unit of the distances.
    """

    rows: list[SamplerErrors]
    nats_per_logsnr: tuple[float, ...]
    unit: str


def compare(
    workdir: str,
    pairs: Sequence[str],
    nfe: Sequence[int],
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
        that is no diffusion model.
    """
    parse_pairs(pairs)
    if saved_weights.load_run(workdir).stage.is_autoencoder:
        ae = api.load_autoencoder(workdir, step=step, weights=weights)
        images = _held_out(ae.datasets, num_examples)["image"]
        nats_per_logsnr = decoder_nats_per_logsnr(ae, images, seed)
        rows = compare_decoders(
            ae, images, pairs, nfe, nats_per_logsnr=nats_per_logsnr, seed=seed
        )
        return SamplerComparison(rows, nats_per_logsnr, "8-bit levels")
    gen = api.load_generator(workdir, step=step, weights=weights)
    batch = prompts.held_out_conditions(gen, num_examples)
    condition = {name: batch[name] for name in gen.stage.conditions.names}
    nats_per_logsnr = base_nats_per_logsnr(gen, batch["image"], condition, seed)
    rows = compare_base_samplers(
        gen,
        batch["image"],
        condition,
        pairs,
        nfe,
        nats_per_logsnr=nats_per_logsnr,
        guidance=guidance,
        seed=seed,
    )
    return SamplerComparison(
        rows, nats_per_logsnr, "standard deviations of the noise in z_0"
    )


def to_markdown(comparison: SamplerComparison) -> str:
    """Return the table of a comparison, with the unit of the distance."""
    header = ["grid:kind", "steps", "NFE", "distance to the ODE solution"]
    rows = [[*header, "std ratio", "Frechet (pixels_8x8)"]]
    for r in comparison.rows:
        numbers = (r.distance, r.std_ratio, r.frechet)
        cells = ["" if v is None else f"{v:.3f}" for v in numbers]
        rows.append([r.pair, str(r.num_steps), str(r.nfe), *cells])
    return (
        markdown.table(rows, align_right=True)
        + "\n\nThe distance to the ODE solution from the same noise is in "
        f"{comparison.unit}.\nThe std ratio is the standard deviation of x given z_0 divided "
        "by that of the ODE solution.\nPSNR is omitted, because a sampler with a larger error "
        "has a higher PSNR."
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
      ConfigError: its decoder is no diffusion model.
    """
    decoder = autoencoder.codec.decoder
    if not isinstance(decoder, DiffusionDecoder):
        raise ConfigError(
            "The decoder must be a diffusion model, because only these have a sampler; the "
            f"run is of stage {autoencoder.stage.name!r}. Pass a run with such a decoder."
        )
    return decoder


def decoder_nats_per_logsnr(
    autoencoder: Autoencoder, images: np.ndarray, seed: int
) -> tuple:
    """Return the decoder's nats per unit of log-SNR, `logsnr_curve.NUM_BINS` means."""
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
    nats = ae.map_rows("", measure, **_rows(images), **validated)
    return tuple(float(v) for v in nats.mean(0))


def compare_decoders(
    autoencoder: Autoencoder,
    images: np.ndarray,
    pairs: Sequence[str],
    nfe: Sequence[int],
    *,
    nats_per_logsnr: tuple[float, ...],
    seed: int = 0,
) -> list[SamplerErrors]:
    """Compare samplers of the decoder on the latents of `images`, uint8 [N, H, W, C].

    nfe: numbers of function evaluations to try; a method that cannot spend one exactly
    spends less.

    Raises:
      ConfigError: an unknown pair, or a decoder that is no diffusion model.
    """
    codec, decoder = autoencoder.codec, decoder_of(autoencoder)
    keys = [seed_key(seed), seed_key(seed + 1)]

    def run_sampler(sampler: Sampler) -> SamplerOutput:
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
        return SamplerOutput(
            first * 127.5,
            np.asarray(arrays.to_uint8(jnp.asarray(first))),
            second * 127.5,
        )

    return _compare(
        run_sampler, decoder.sampler, pairs, nfe, nats_per_logsnr, images, last_call=1
    )


def compare_base_samplers(
    generator: Generator,
    images: np.ndarray,
    condition: dict[str, np.ndarray],
    pairs: Sequence[str],
    nfe: Sequence[int],
    *,
    nats_per_logsnr: tuple[float, ...],
    guidance: float = 1.0,
    seed: int = 0,
) -> list[SamplerErrors]:
    """Compare samplers of the base model for the conditions of N samples.

    images: real images, to which the Frechet distance is measured. Arguments and errors
    are otherwise those of `compare_decoders`.
    """
    latents = generator.sampler
    noise_std = float(gaussian.sigma(latents.schedule.logsnr_max))

    def run_sampler(sampler: Sampler) -> SamplerOutput:
        sampling = dataclasses.replace(latents, sampler=sampler)
        other = dataclasses.replace(generator, sampler=sampling)
        z_0 = other.sample_latents(condition, guidance=guidance, seed=seed)
        decoded = generator.autoencoder.decode(z_0, noisy=True, seed=seed)
        return SamplerOutput(z_0 / noise_std, decoded)

    return _compare(
        run_sampler, latents.sampler, pairs, nfe, nats_per_logsnr, images, last_call=0
    )


def _compare(
    run_sampler: Callable[[Sampler], SamplerOutput],
    own: Sampler,
    pairs: Sequence[str],
    nfe: Sequence[int],
    nats_per_logsnr: tuple[float, ...],
    images: np.ndarray,
    *,
    last_call: int,
) -> list[SamplerErrors]:
    parsed = parse_pairs(pairs)
    solution = Sampler("dpmpp_2m", REFERENCE_STEPS, own.schedule, GRIDS["logsnr"]())
    candidates = [
        (pair, candidate)
        for pair, (grid, method) in zip(pairs, parsed, strict=True)
        for count in nfe
        if (
            candidate := _candidate(
                own, grid, method, count - last_call, nats_per_logsnr
            )
        )
    ]
    progress = tqdm(
        [("reference", solution), *candidates], unit="sampler", dynamic_ncols=True
    )
    reference, rows = None, []
    for pair, sampler in progress:
        progress.set_description(f"{pair} {sampler.num_steps}")
        output = run_sampler(sampler)
        reference = reference or output
        rows.append(
            SamplerErrors(
                pair=pair,
                num_steps=sampler.num_steps,
                nfe=sampler.nfe + last_call,
                distance=None
                if sampler.method in STOCHASTIC
                else _rms(output.values - reference.values),
                std_ratio=_std_ratio(output, reference),
                frechet=_frechet(output.images, images),
            )
        )
    return rows


def _candidate(
    own: Sampler, grid: str, method: str, nfe: int, nats_per_logsnr: tuple[float, ...]
) -> Sampler | None:
    """Return the sampler with at most `nfe` evaluations; None if one step needs more."""
    num_steps = nfe // (2 if method in CORRECTIONS else 1)
    if num_steps < 1:
        return None
    built: Grid = GRIDS[grid](own.grid.logsnr_max, own.grid.logsnr_min)
    if isinstance(built, UniformTime):
        built = UniformTime()
    elif isinstance(built, Adaptive):
        built = dataclasses.replace(built, nats_per_logsnr=nats_per_logsnr)
    return Sampler(method, num_steps, own.schedule, built)


def _frechet(samples: np.ndarray, real: np.ndarray) -> float | None:
    """Return the Frechet distance of 8x8 block means; None if images have none."""
    if real.ndim != 4 or real.shape[1] % 8 or real.shape[2] % 8:
        return None
    fitted = (frechet.fit_gaussian(pixels.features(x)) for x in (samples, real))
    return frechet.distance(*fitted)


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _std_ratio(output: SamplerOutput, reference: SamplerOutput) -> float | None:
    if output.second is None or reference.second is None:
        return None
    return _rms(output.values - output.second) / _rms(
        reference.values - reference.second
    )


def _rows(images: np.ndarray) -> dict[str, Any]:
    rows = rates.numbered(images, 0, len(images))
    return {name: rows[name] for name in ("image", "row")}
