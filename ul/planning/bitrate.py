"""Which loss factor and bias give which bitrate, before training.

The objective's exact optimum on Gaussian data with the covariance spectrum of the
training images (diffusion/waterfilling), as a table and a picture.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ul.config import JointConfig, TrainConfig
from ul.core.errors import ConfigError
from ul.data import datasets
from ul.diffusion import waterfilling
from ul.planning import plots
from ul.planning import spectrum as spectra
from ul.planning.spectrum import Spectrum
from ul.stages import registry

SPECTRA = ("auto", "covariance", "patches", "radial")
EXAMPLES = 10_000
# Images of many pixels say more each: so many numbers are read at the most.
NUMBERS = 2**28
PEAK = 2.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """A trained stage 1 of this project: bits/pixel as predicted and as measured on held-out
    images (README, commits ab26375 and a95e606)."""

    data: str
    factor: float
    bias: float
    predicted_bpp: float
    measured_bpp: float


MEASURED = (
    Measured("digits", 1.5, 3.0, 0.320, 0.174),
    Measured("digits", 1.3, 4.0, 0.389, 0.183),
    Measured("digits", 2.0, 3.0, 0.662, 0.442),
    Measured("digits", 1.7, 4.0, 0.866, 0.576),
    Measured("digits", 2.0, 4.0, 1.130, 0.844),
    Measured("digits", 2.5, 4.0, 1.457, 1.153),
    Measured("photos 16x16", 2.0, 2.0, 0.200, 0.223),
    Measured("photos 16x16", 1.7, 3.0, 0.279, 0.328),
    Measured("photos 16x16", 2.0, 3.0, 0.406, 0.421),
    Measured("photos 16x16", 2.5, 3.0, 0.612, 0.539),
    Measured("photos 16x16", 2.0, 4.0, 0.794, 0.547),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a trained stage 1 should be like at one loss factor and bias."""

    factor: float
    bias: float
    bpp: float
    psnr_mean_db: float
    psnr_sampled_db: float
    coded: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """`own` is the config's row; `rows` has it too, in its place in the grid."""

    spectrum: Spectrum
    pixels: int
    latent_shape: tuple[int, ...]
    own: Row
    rows: tuple[Row, ...]


def prepare(
    config: TrainConfig,
    factors: Sequence[float],
    biases: Sequence[float],
    *,
    estimator: str = "auto",
    examples: int | None = None,
    latent_limit: bool = False,
    progress: bool = False,
) -> Plan:
    """The predictions for each factor with each bias, and for the config's own.

    `examples` None: enough of them. `latent_limit`: no more directions are coded than
    the latent has elements.

    Raises:
      ConfigError: no stage-1 config of Unified Latents, or arguments out of range; said
        before any image is read.
      DataError: the data cannot be read, or do not vary.
    """
    if type(config) is not JointConfig:
        raise ConfigError(
            f"--config is of stage {config.stage!r}, but the planner "
            "is for stage 'joint'; give a stage-1 one, such as experiments/photos.py:stage1"
        )
    if len(config.data.image_shape) != 3:
        raise ConfigError("the planner is for images; these data are clips")
    _check_numbers("factors", factors, above=1.0)
    _check_numbers("biases", biases)
    waterfilling.posterior_precision(np.asarray(factors)[:, None], np.asarray(biases))
    shape = registry.modules(config).latent_shape
    found = _spectrum(config, shape, estimator, examples, progress)
    if latent_limit:
        each = round(math.prod(shape) / found.units)
        found = dataclasses.replace(found, limit=min(each, len(found.variances)))
    pixels = math.prod(config.data.image_shape[:-1])
    own = (config.loss.weighting.factor, config.loss.weighting.bias)
    grid = sorted({(f, b) for f in factors for b in biases} | {own})
    rows = {at: row(found, pixels, *at) for at in grid}
    return Plan(found, pixels, shape, rows[own], tuple(rows.values()))


def row(spectrum: Spectrum, pixels: int, factor: float, bias: float) -> Row:
    """The prediction at one point."""
    precision = waterfilling.posterior_precision(factor, bias)
    mse = spectrum.mse(precision)
    # A sample of the posterior errs twice as much as its mean.
    mean, sampled = (10.0 * math.log10(PEAK**2 / (k * mse)) for k in (1.0, 2.0))
    bpp = spectrum.bits(precision) / pixels
    return Row(factor, bias, bpp, mean, sampled, spectrum.coded(precision))


def check_target(target_bpp: float) -> None:
    """Raises ConfigError unless it is a positive number."""
    if not (math.isfinite(target_bpp) and target_bpp > 0):
        raise ConfigError(f"--target_bpp is {target_bpp}; it must be a positive number")


def proposals(plan: Plan, target_bpp: float) -> str:
    """The bias at the config's factor and the factor at its bias that cost so much.

    As overrides to paste; what cannot be reached is said.

    Raises:
      ConfigError: the target is no positive number.
    """
    check_target(target_bpp)
    bits = target_bpp * plan.pixels / plan.spectrum.units
    codable, own = plan.spectrum.codable, plan.own
    bias = round(waterfilling.bias_for_rate(codable, bits, own.factor), 4)
    lines = [
        f"For {target_bpp:g} bits/pixel:",
        "  "
        + _override("bias", bias, row(plan.spectrum, plan.pixels, own.factor, bias)),
    ]
    try:
        factor = float(f"{waterfilling.factor_for_rate(codable, bits, own.bias):.6g}")
        at = row(plan.spectrum, plan.pixels, factor, own.bias)
    except ConfigError:  # beyond all factors, or 1 after rounding
        lines.append(f"  at bias {own.bias:g} no factor reaches it: change the bias")
    else:
        lines.append("  or " + _override("factor", factor, at))
    return "\n".join(lines)


def _override(name: str, value: float, at: Row) -> str:
    kept = f"bias {at.bias:g}" if name == "factor" else f"factor {at.factor:g}"
    return (
        f"--config.loss.{name}={value}  (at {kept}: {at.bpp:.4g} bits/pixel, "
        f"PSNR {at.psnr_sampled_db:.2f} dB sampled)"
    )


def markdown(plan: Plan) -> str:
    """The table, and below it what it rests on."""
    numbers = plan.spectrum.dimensions
    head = ["c_lf", "b", "bits/pixel", "PSNR mean, dB", "PSNR sampled, dB"]
    cells = [[*head, f"coded of {numbers}", ""]]
    for r in plan.rows:
        shown = [f"{r.factor:g}", f"{r.bias:g}", f"{r.bpp:.4f}"]
        shown += [f"{r.psnr_mean_db:.2f}", f"{r.psnr_sampled_db:.2f}", str(r.coded)]
        cells.append([*shown, "<- this config" if r is plan.own else ""])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:], "", *_notes(plan)])


def _notes(plan: Plan) -> list[str]:
    """What the numbers rest on, one sentence a line."""
    size = "x".join(map(str, plan.latent_shape))
    elements = math.prod(plan.latent_shape)
    if plan.spectrum.limit is None:
        limit = (
            f"The latent's size ({size} = {elements}) is not counted in; "
            "--latent_limit does that."
        )
    else:
        limit = (
            f"At most {elements} directions are coded, as many as the latent ({size}) "
            "has elements; the others keep their whole variance as error."
        )
    return [
        "- Exact for Gaussian data and ideal networks: reverse water-filling of the "
        "training data's spectrum.",
        f"- {limit}",
        f"- Spectrum: {plan.spectrum.estimator}.",
        f"- Measured runs of this project spent {measured_ratios()} times the bits "
        "predicted: images are not Gaussian, networks not ideal.",
        "- PSNR: mean is the posterior mean's (distortion D), sampled is that of "
        "reconstructions the decoder samples (2 D).",
    ]


def measured_ratios(rows: Sequence[Measured] = MEASURED) -> str:
    """Measured over predicted bits, as a range for each data set."""
    found: dict[str, list[float]] = {}
    for r in rows:
        found.setdefault(r.data, []).append(r.measured_bpp / r.predicted_bpp)
    said = []
    for data, ratios in found.items():
        low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
        span = low if low == high else f"{low} to {high}"
        said.append(f"{span} ({data}, {len(ratios)} run{'s' * (len(ratios) > 1)})")
    return " and ".join(said)


def draw(plan: Plan, path: str, title: str) -> None:
    """The picture of the plan, as PNG.

    Raises:
      StorageError: it cannot be written.
    """
    at = {
        (r.factor, r.bias): waterfilling.posterior_precision(r.factor, r.bias)
        for r in plan.rows
    }
    own = (plan.own.factor, plan.own.bias)
    plots.plan(path, plan.spectrum, at, own, pixels=plan.pixels, title=title)


def _check_numbers(name: str, values: Sequence[float], above: float = -math.inf):
    wrong = [v for v in values if not (math.isfinite(v) and v > above)]
    if wrong or not values:
        must = "numbers" if above == -math.inf else f"numbers above {above:g}"
        raise ConfigError(f"--{name} is {list(values)}; it must be {must}")


def _spectrum(
    config: JointConfig,
    latent_shape: tuple[int, ...],
    estimator: str,
    examples: int | None,
    progress: bool,
) -> Spectrum:
    """The spectrum of the training images by the estimator that was asked for."""
    if estimator not in SPECTRA:
        raise ConfigError(
            f"--spectrum is {estimator!r}; known are {', '.join(SPECTRA)}"
        )
    shape = config.data.image_shape
    numbers = math.prod(shape)
    if estimator == "auto":
        small = numbers <= spectra.MOST_DIMENSIONS
        estimator = "covariance" if small else "radial"
    if estimator == "covariance" and numbers > spectra.MOST_DIMENSIONS:
        raise ConfigError(
            f"--spectrum=covariance of images of {numbers} numbers is beyond "
            f"{spectra.MOST_DIMENSIONS}; use radial or patches"
        )
    cell = shape[0] // latent_shape[0]
    side = spectra.patch_side(shape, cell)
    if estimator == "patches" and not side:
        raise ConfigError(
            f"a patch of one latent cell, {cell}x{cell} pixels, has more than "
            f"{spectra.PATCH_DIMENSIONS} numbers; use --spectrum=radial"
        )
    if examples is not None and examples < 2:
        raise ConfigError(f"--examples is {examples}; it must be at least 2")
    wanted = examples or min(EXAMPLES, max(2, NUMBERS // numbers))
    image = _images(config, wanted, progress)
    if estimator == "patches":
        return spectra.of_patches(image, side, cell)
    return (
        spectra.of_images(image) if estimator == "covariance" else spectra.radial(image)
    )


def _images(config: JointConfig, count: int, progress: bool) -> np.ndarray:
    """So many training images without augmentation, from all over the data."""
    one_pass = datasets.plain_train(config)
    indices = list(range(len(one_pass)))
    if count < len(one_pass):
        # By chance, not the first: a folder is in the order of its classes.
        rng = np.random.default_rng(0)
        indices = sorted(rng.choice(len(one_pass), count, replace=False).tolist())
    return datasets.read(one_pass, indices, "reading" if progress else "")["image"]
