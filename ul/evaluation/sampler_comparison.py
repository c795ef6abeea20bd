"""Compare samplers by their distance to the solution of the probability-flow ODE.

The ODE is that of Song et al., arXiv 2011.13456. PSNR is no criterion: it rises with the
error of a sampler, because samples then shrink towards the mean of the posterior.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ul.checkpoints import digests
from ul.core import arrays, markdown
from ul.core.errors import ConfigError
from ul.data import datasets as examples_of
from ul.data.datasets import Datasets
from ul.diffusion import gaussian
from ul.diffusion.samplers import CORRECTIONS, METHODS, STOCHASTIC, Sampler
from ul.diffusion.sampling_grids import GRIDS, Adaptive, Grid, UniformTime
from ul.evaluation import prompts
from ul.evaluation.information_curve import (
    base_nats_per_logsnr,
    decoder_nats_per_logsnr,
    rows_of,
)
from ul.evaluation.sampler_errors import (
    MAX_SHOWN,
    Candidate,
    SamplerErrors,
    SamplerOutput,
    compare_outputs,
)
from ul.inference import api
from ul.inference import weights as saved_weights
from ul.inference.models import Autoencoder, Generator, seed_key
from ul.stages.codec import DiffusionDecoder
from ul.train import image_grids

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
class SamplerComparison:
    """The compared samplers of a run, and the measurement for an adaptive grid.

    originals: uint8 held-out images; the first ones are shown. unit: the unit of the
    distances.
    """

    rows: list[SamplerErrors]
    nats_per_logsnr: tuple[float, ...]
    originals: np.ndarray
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
    students: Sequence[str] = (),
) -> SamplerComparison:
    """Compare samplers of the decoder of a stage 1, or of the base model of a stage 2.

    students: runs of stage "distill" on the encoder of this stage 1.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; an unknown pair; a decoder
        that is no diffusion model; a student of another encoder.
    """
    parse_pairs(pairs)
    if saved_weights.load_run(workdir).stage.is_autoencoder:
        ae = api.load_autoencoder(workdir, step=step, weights=weights)
        images = _held_out(ae.datasets, num_examples)["image"]
        decoder = _undistilled_decoder(ae, workdir)
        nats_per_logsnr = decoder_nats_per_logsnr(ae, decoder, images, seed)
        rows = compare_decoders(
            ae,
            images,
            pairs,
            nfe,
            nats_per_logsnr=nats_per_logsnr,
            seed=seed,
            students=students,
        )
        return SamplerComparison(rows, nats_per_logsnr, images, "8-bit levels")
    if students:
        raise ConfigError(
            f"--students are decoders, and {workdir} is a stage 2. Pass its stage 1."
        )
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
        rows,
        nats_per_logsnr,
        batch["image"],
        "standard deviations of the noise in z_0",
    )


def to_markdown(comparison: SamplerComparison) -> str:
    """Return the table of a comparison, with the unit of the distance."""
    header = ["grid:kind", "steps", "NFE", "distance to the ODE solution"]
    rows = [[*header, "std ratio", "Frechet (pixels_8x8)", "images/s"]]
    for r in comparison.rows:
        numbers = (r.distance, r.std_ratio, r.frechet)
        cells = ["" if v is None else f"{v:.3f}" for v in numbers]
        speed = "" if r.images_per_s is None else f"{r.images_per_s:,.0f}"
        rows.append([r.pair, str(r.num_steps), str(r.nfe), *cells, speed])
    return (
        markdown.table(rows, align_right=True)
        + "\n\nThe distance to the ODE solution from the same noise is in "
        f"{comparison.unit}.\nThe std ratio is the standard deviation of x given z_0 divided "
        "by that of the ODE solution.\nPSNR is omitted, because a sampler with a larger error "
        "has a higher PSNR."
    )


def draw(comparison: SamplerComparison) -> np.ndarray:
    """Draw a row of originals and one of samples per sampler, uint8 [H, W, 1 or 3]."""
    count = min(MAX_SHOWN, len(comparison.originals))
    calls = [f"{r.nfe} call{'s' * (r.nfe != 1)}" for r in comparison.rows]
    labels = zip(comparison.rows, calls, strict=True)
    names = ["original", *(f"{r.pair}, {text}" for r, text in labels)]
    shown = [comparison.originals[:count], *(r.images for r in comparison.rows)]
    scale = max(1, 64 // comparison.originals.shape[-2])
    grid = image_grids.draw_grid(np.concatenate(shown), count, scale)
    rows_per_name = 1 if comparison.originals.ndim == 4 else count
    rows = [name for name in names for _ in range(rows_per_name)]
    return image_grids.add_text(grid, "held-out examples", rows)


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


def _undistilled_decoder(autoencoder: Autoencoder, workdir: str) -> DiffusionDecoder:
    """Return a decoder that has samplers to choose from, as `decoder_of`."""
    if autoencoder.stage.distillation is not None:
        raise ConfigError(
            f"{workdir} is a student, which has one sampler. Pass the run of its teacher as "
            "--workdir and this one as --students."
        )
    return decoder_of(autoencoder)


def compare_decoders(
    autoencoder: Autoencoder,
    images: np.ndarray,
    pairs: Sequence[str],
    nfe: Sequence[int],
    *,
    nats_per_logsnr: tuple[float, ...],
    seed: int = 0,
    students: Sequence[str] = (),
) -> list[SamplerErrors]:
    """Compare samplers of the decoder on the latents of `images`, uint8 [N, H, W, C].

    nfe: numbers of function evaluations to try; a method that cannot spend one exactly
    spends less. students: as for `compare`.

    Raises:
      ConfigError: an unknown pair, or a decoder that is no diffusion model.
    """
    decoder = decoder_of(autoencoder)

    def run_sampler(sampler: Sampler) -> SamplerOutput:
        sampling = dataclasses.replace(decoder, sampler=sampler)
        return _decode_twice(autoencoder, sampling, images, seed)

    candidates = _candidates(
        run_sampler, decoder.sampler, pairs, nfe, nats_per_logsnr, last_call=1
    )
    for workdir, label in zip(students, distinct_labels(students), strict=True):
        student = load_student(workdir, autoencoder)
        calls = decoder_of(student).sampler.nfe + 1
        run = functools.partial(
            _decode_twice, student, decoder_of(student), images, seed
        )
        name = f"student {label}"
        is_stochastic = calls > 1 and decoder_of(student).sampler.method in STOCHASTIC
        candidates.append(Candidate(name, calls, calls, is_stochastic, run))
    return compare_outputs(candidates, images)


def distinct_labels(paths: Sequence[str]) -> list[str]:
    """Return the parts of paths in which they differ: of a/x/s and a/y/s, x and y."""
    parts = [epath.Path(path).parts for path in paths]
    for end in (0, -1):
        while min(map(len, parts), default=0) > 1 and len({p[end] for p in parts}) == 1:
            parts = [p[1:] if end == 0 else p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def load_student(workdir: str, teacher: Autoencoder) -> Autoencoder:
    """Load a run of stage "distill".

    Raises:
      ConfigError: it is none, or has another encoder than `teacher`.
    """
    student = api.load_autoencoder(workdir)
    if student.stage.distillation is None:
        raise ConfigError(
            f"--students must be runs of stage 'distill'; {workdir} is of stage "
            f"{student.stage.name!r}."
        )
    ours, theirs = (
        digests.fingerprint(ae.params["encoder"]) for ae in (teacher, student)
    )
    if ours != theirs:
        raise ConfigError(
            f"The student {workdir} must have the encoder of --workdir; it has another. "
            "Pass the run of its teacher."
        )
    return student


def _decode_twice(
    autoencoder: Autoencoder, decoder: DiffusionDecoder, images: np.ndarray, seed: int
) -> SamplerOutput:
    """Decode the latents of `images` with the noise of two seeds."""
    codec, keys = autoencoder.codec, [seed_key(seed), seed_key(seed + 1)]

    @jax.jit
    def encode(image, row):
        z = codec.latents(autoencoder.params, image, row, keys[0])
        return codec.add_noise(z, row, keys[0])

    @jax.jit
    def decode(z_0, row, key):
        return decoder(autoencoder.params, z_0, row, key)

    rows = rows_of(images)
    z_0 = autoencoder.map_rows("", encode, **rows)

    def decode_all(key):
        x = autoencoder.map_rows(
            "", lambda z_0, row: decode(z_0, row, key), z_0=z_0, row=rows["row"]
        )
        return np.clip(x, -1.0, 1.0)

    first = decode_all(keys[0])
    started_at = time.perf_counter()  # when everything is compiled
    second = decode_all(keys[1])
    return SamplerOutput(
        first * 127.5,
        np.asarray(arrays.to_uint8(jnp.asarray(first))),
        second * 127.5,
        len(images) / (time.perf_counter() - started_at),
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

    candidates = _candidates(
        run_sampler, latents.sampler, pairs, nfe, nats_per_logsnr, last_call=0
    )
    return compare_outputs(candidates, images)


def _candidates(
    run_sampler: Callable[[Sampler], SamplerOutput],
    own: Sampler,
    pairs: Sequence[str],
    nfe: Sequence[int],
    nats_per_logsnr: tuple[float, ...],
    *,
    last_call: int,
) -> list[Candidate]:
    """Return the reference solution, and the samplers of all pairs."""
    samplers = [
        (
            "reference",
            Sampler("dpmpp_2m", REFERENCE_STEPS, own.schedule, GRIDS["logsnr"]()),
        )
    ]
    for pair, (grid, method) in zip(pairs, parse_pairs(pairs), strict=True):
        for count in nfe:
            calls = count - last_call
            if sampler := _candidate(own, grid, method, calls, nats_per_logsnr):
                samplers.append((pair, sampler))
    return [
        Candidate(
            pair,
            sampler.num_steps,
            sampler.nfe + last_call,
            sampler.method in STOCHASTIC,
            functools.partial(run_sampler, sampler),
        )
        for pair, sampler in samplers
    ]


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
