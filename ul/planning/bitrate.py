"""Predict the bitrate of each loss factor and bias before training.

The prediction is the exact optimum of the objective on Gaussian data with the covariance
spectrum of the training images (ul/diffusion/waterfilling.py), as a table and a picture.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ul.core import markdown
from ul.core.errors import ConfigError, UserError
from ul.data import datasets as examples_of
from ul.data.datasets import Datasets
from ul.diffusion import waterfilling
from ul.diffusion.weightings import Sigmoid
from ul.planning import natural, plots, radial
from ul.planning import spectrum as spectra
from ul.planning.spectrum import Spectrum
from ul.stages.stage import Stage

log = logging.getLogger("ul")

# A covariance of fewer images than this for each value is uncertain.
FEW_EXAMPLES = 4
ESTIMATORS = ("auto", "covariance", "patches", "radial", "natural")
ESTIMATORS_HELP = (
    "How the spectrum of the data is estimated; natural is that of six photographs and "
    "needs no data."
)
MAX_EXAMPLES = 10_000
# Fewer large images suffice, because each of them holds more values.
MAX_VALUES = 2**28


@dataclasses.dataclass(frozen=True)
class BitratePrediction:
    """Predicted rate and PSNR of a trained stage 1 at one loss factor and bias.

    `num_coded` is the number of directions of an image that get bits. `latent_std` is the
    standard deviation of the latents around their mean.
    """

    factor: float
    bias: float
    bpp: float
    mean_psnr_db: float
    sample_psnr_db: float
    num_coded: int
    latent_std: float


class LatentSpec(NamedTuple):
    """The number of elements of a latent, and the log-SNR of the encoder's noise."""

    elements: int
    logsnr: float


@dataclasses.dataclass(frozen=True)
class BitratePlan:
    """Predictions on a grid of loss factors and biases.

    `config_prediction` is the one for the config's own loss factor and bias; `predictions`
    contains it too, in its place in the grid. `num_pixels` is of one image.
    """

    spectrum: Spectrum
    num_pixels: int
    latent_shape: tuple[int, ...]
    latent: LatentSpec
    config_prediction: BitratePrediction
    predictions: tuple[BitratePrediction, ...]


def make_plan(
    stage: Stage,
    datasets: Datasets,
    factors: Sequence[float],
    biases: Sequence[float],
    *,
    estimator: str = "auto",
    num_examples: int | None = None,
    latent_limit: bool = True,
    measure_entropy: bool = True,
    show_progress: bool = False,
) -> BitratePlan:
    """Predict every pair of factor and bias, and the stage's own pair.

    `num_examples` None reads as many images as the estimate needs; the estimator "natural"
    reads none. With `latent_limit` no more directions are coded than the latent has
    elements. Without `measure_entropy` the latents are taken for Gaussian, which is faster.

    Raises:
      ConfigError: the stage is not 'joint', or an argument is out of range; raised
        before any image is read.
      DataError: the training images cannot be read, or do not differ.
    """
    weighting = _weighting(stage)
    _check_numbers("factors", factors, lower=1.0)
    _check_numbers("biases", biases)
    # An unreachable precision is rejected here, before any image is read.
    waterfilling.posterior_precision(np.asarray(factors)[:, None], np.asarray(biases))
    assert stage.codec is not None
    latent_shape = stage.latent_shape
    spectrum = _training_spectrum(
        stage, datasets, estimator, num_examples, measure_entropy, show_progress
    )
    if latent_limit:
        per_block = round(math.prod(latent_shape) / spectrum.blocks_per_image)
        spectrum = dataclasses.replace(
            spectrum, max_coded=min(per_block, len(spectrum.variances))
        )
    num_pixels = math.prod(stage.image_shape[:-1])
    config_pair = (weighting.factor, weighting.bias)
    pairs = sorted({(f, b) for f in factors for b in biases} | {config_pair})
    latent = LatentSpec(math.prod(latent_shape), stage.codec.latent_logsnr)
    predictions = {pair: predict(spectrum, num_pixels, latent, *pair) for pair in pairs}
    return BitratePlan(
        spectrum,
        num_pixels,
        latent_shape,
        latent,
        predictions[config_pair],
        tuple(predictions.values()),
    )


def _weighting(stage: Stage) -> Sigmoid:
    """Return the weighting of a stage; raise ConfigError if its rate cannot be predicted."""
    weighting = getattr(stage, "weighting", None)
    if stage.name != "joint" or not isinstance(weighting, Sigmoid):
        raise ConfigError(
            "The bitrate can be predicted for stage 'joint' with sigmoid weighting only; "
            f"--config is of stage {stage.name!r}. Pass a stage-1 config such as "
            "experiments/photos.py:stage1."
        )
    if len(stage.image_shape) != 3:
        raise ConfigError(
            "The bitrate can be predicted for images only; data.image_shape "
            f"{stage.image_shape} describes video. Pass a config of images."
        )
    return weighting


def planned_rate_bpp(stage: Stage, datasets: Datasets) -> float | None:
    """Return the predicted rate of the stage's own loss factor and bias.

    None if no rate can be predicted: another loss, clips, or images that cannot be read.
    """
    try:
        weighting = _weighting(stage)
    except ConfigError:  # most stages have no rate to predict
        return None
    try:
        plan = make_plan(
            stage,
            datasets,
            [weighting.factor],
            [weighting.bias],
            measure_entropy=False,
        )
    except UserError as e:  # training itself says what is wrong, if it matters there
        log.warning("the rate cannot be predicted: %s", e)
        return None
    return plan.config_prediction.bpp


def predict(
    spectrum: Spectrum, num_pixels: int, latent: LatentSpec, factor: float, bias: float
) -> BitratePrediction:
    """Predict rate, PSNR and scale of the latents at one loss factor and bias."""
    precision = waterfilling.posterior_precision(factor, bias)
    variance = spectrum.latent_variance(precision, *latent)
    return BitratePrediction(
        factor=factor,
        bias=bias,
        bpp=spectrum.bits(precision) / num_pixels,
        mean_psnr_db=spectrum.mean_psnr_db(precision),
        sample_psnr_db=spectrum.sample_psnr_db(precision),
        num_coded=spectrum.num_coded(precision),
        latent_std=math.sqrt(variance),
    )


def check_target(target_bpp: float) -> None:
    """Raise ConfigError unless the target is a positive number."""
    if not (math.isfinite(target_bpp) and target_bpp > 0):
        raise ConfigError(f"--target_bpp must be a positive number; got {target_bpp}.")


def propose_overrides(plan: BitratePlan, target_bpp: float) -> str:
    """Return the config overrides that should reach the target rate, one per line.

    The first changes the bias and keeps the config's loss factor, the second changes the
    loss factor and keeps the bias. The text says so if no loss factor reaches the target.

    Raises:
      ConfigError: the target is not a positive number.
    """
    check_target(target_bpp)
    bits_per_block = target_bpp * plan.num_pixels / plan.spectrum.blocks_per_image
    variances = plan.spectrum.codable_variances
    factor, bias = plan.config_prediction.factor, plan.config_prediction.bias
    new_bias = round(waterfilling.bias_for_rate(variances, bits_per_block, factor), 4)
    prediction = predict(plan.spectrum, plan.num_pixels, plan.latent, factor, new_bias)
    lines = [
        f"For {target_bpp:g} bits/pixel:",
        "  " + _override("bias", new_bias, f"factor {factor:g}", prediction),
    ]
    try:
        new_factor = waterfilling.factor_for_rate(variances, bits_per_block, bias)
        new_factor = float(f"{new_factor:.6g}")
        prediction = predict(
            plan.spectrum, plan.num_pixels, plan.latent, new_factor, bias
        )
    except ConfigError:  # no factor is large enough, or it is 1 after rounding
        lines.append(
            f"  At bias {bias:g} no loss factor reaches this rate; change the bias."
        )
    else:
        override = _override("factor", new_factor, f"bias {bias:g}", prediction)
        lines.append(f"  or {override}")
    return "\n".join(lines)


def _override(
    name: str, value: float, unchanged: str, prediction: BitratePrediction
) -> str:
    return (
        f"--config.loss.weighting.{name}={value}  (at {unchanged}: "
        f"{prediction.bpp:.4g} bits/pixel, PSNR of samples {prediction.sample_psnr_db:.2f} dB)"
    )


def to_markdown(plan: BitratePlan) -> str:
    """Return the table of predictions, followed by the assumptions behind it."""
    header = ["c_lf", "b", "bits/pixel", "PSNR of posterior mean, dB"]
    coded = f"coded of {plan.spectrum.image_values}"
    rows = [[*header, "PSNR of samples, dB", coded, "std of latents", ""]]
    for p in plan.predictions:
        cells = [f"{p.factor:g}", f"{p.bias:g}", f"{p.bpp:.4f}"]
        cells += [f"{p.mean_psnr_db:.2f}", f"{p.sample_psnr_db:.2f}"]
        mark = "<- this config" if p is plan.config_prediction else ""
        rows.append([*cells, str(p.num_coded), f"{p.latent_std:.3f}", mark])
    return "\n".join([markdown.table(rows, align_right=True), "", *_assumptions(plan)])


def _assumptions(plan: BitratePlan) -> list[str]:
    """Return what the predictions assume, one sentence per line."""
    shape = "x".join(map(str, plan.latent_shape))
    elements = math.prod(plan.latent_shape)
    if plan.spectrum.max_coded is None:
        limit = (
            f"The size of the latent ({shape} = {elements} elements) is not taken into "
            "account (--nolatent_limit)."
        )
    else:
        limit = (
            f"At most {elements} directions are coded, as many as the latent ({shape}) "
            "has elements; the others keep their whole variance as error."
        )
    ratio = plan.spectrum.entropy_ratio
    if ratio is None:
        latents = (
            "The std of latents is that of Gaussian data; of other data it is smaller. "
            "--spectrum=covariance or patches measures by how much; it needs scikit-learn."
        )
    else:
        latents = (
            f"The std of latents is for data with {ratio:.2f} of the entropy power of "
            "Gaussian data (independent components)."
        )
    return [
        "- The predictions are exact for Gaussian data and ideal networks: reverse "
        "water-filling of the training data's spectrum.",
        f"- {limit}",
        f"- Spectrum: {plan.spectrum.description}.",
        "- Images are not Gaussian and networks are not ideal; experiments/RESULTS.md "
        "compares predicted with measured rates.",
        f"- {latents}",
        "- The posterior mean has distortion D. A diffusion decoder samples the posterior "
        "instead, which doubles the distortion (2 D).",
    ]


def draw(plan: BitratePlan, path: str, title: str) -> None:
    """Draw rate, distortion and spectrum of the plan as a PNG.

    Raises:
      StorageError: the picture cannot be written.
    """
    precisions = {
        (p.factor, p.bias): waterfilling.posterior_precision(p.factor, p.bias)
        for p in plan.predictions
    }
    plots.draw_plan(
        path,
        plan.spectrum,
        precisions,
        (plan.config_prediction.factor, plan.config_prediction.bias),
        num_pixels=plan.num_pixels,
        title=title,
    )


def _check_numbers(name: str, values: Sequence[float], lower: float = -math.inf):
    wrong = [v for v in values if not (math.isfinite(v) and v > lower)]
    if wrong or not values:
        kind = "numbers" if lower == -math.inf else f"numbers above {lower:g}"
        raise ConfigError(f"--{name} must be a list of {kind}; got {list(values)}.")


def _training_spectrum(
    stage: Stage,
    datasets: Datasets,
    estimator: str,
    num_examples: int | None,
    measure_entropy: bool,
    show_progress: bool,
) -> Spectrum:
    """Estimate the spectrum of the training images."""
    if estimator not in ESTIMATORS:
        raise ConfigError(
            f"--spectrum must be one of {', '.join(ESTIMATORS)}; got {estimator!r}."
        )
    shape = stage.image_shape
    if estimator == "natural":
        return natural.spectrum(shape)
    image_values = math.prod(shape)
    is_auto = estimator == "auto"
    if is_auto:
        is_small = image_values <= spectra.MAX_IMAGE_VALUES
        estimator = "covariance" if is_small else "radial"
    if estimator == "covariance" and image_values > spectra.MAX_IMAGE_VALUES:
        raise ConfigError(
            "--spectrum=covariance needs images of at most "
            f"{spectra.MAX_IMAGE_VALUES} values; data.image_shape {shape} has "
            f"{image_values}. Use --spectrum=radial or --spectrum=patches."
        )
    cell = shape[0] // stage.latent_shape[0]
    side = spectra.largest_patch_side(shape, cell)
    if estimator == "patches" and not side:
        raise ConfigError(
            "--spectrum=patches needs a patch of whole latent cells that tiles the image "
            f"and has at most {spectra.MAX_PATCH_VALUES} values; one cell is "
            f"{cell}x{cell} pixels of an image of shape {shape}. Use --spectrum=radial."
        )
    if num_examples is not None and num_examples < 2:
        raise ConfigError(f"--examples must be at least 2; got {num_examples}.")
    default_count = min(MAX_EXAMPLES, max(2, MAX_VALUES // image_values))
    image = _training_images(datasets, num_examples or default_count, show_progress)
    if is_auto and len(image) < image_values:
        # The sample covariance of fewer images than values misses most directions.
        estimator = "radial"
    if estimator == "covariance" and len(image) < FEW_EXAMPLES * image_values:
        log.warning(
            "%d images are few for the covariance of %d values; the smaller variances, and "
            "with them high rates, are uncertain",
            len(image),
            image_values,
        )
    if estimator == "patches":
        return spectra.patch_spectrum(
            image, side, cell, measure_entropy=measure_entropy
        )
    if estimator == "covariance":
        return spectra.image_spectrum(image, measure_entropy=measure_entropy)
    return radial.radial_spectrum(image)


def _training_images(datasets: Datasets, count: int, show_progress: bool) -> np.ndarray:
    """Read `count` unaugmented training images, chosen at random.

    The first ones would not do: a folder lists its images class by class.
    """
    examples = datasets.unaugmented_train
    indices = examples_of.fixed_subset(len(examples), count).tolist()
    title = "reading" if show_progress else ""
    return examples_of.read(examples, indices, title)["image"]
