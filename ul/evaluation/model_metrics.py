"""Measurements that run a model: the rate, its split, a likelihood bound, the base rate."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ul.core import batching
from ul.data.datasets import Datasets
from ul.data.sources import gaussian
from ul.diffusion import waterfilling
from ul.diffusion.weightings import Sigmoid
from ul.evaluation import bit_plots
from ul.evaluation.context import EvaluatedAutoencoder, EvaluatedGenerator
from ul.evaluation.measurement import EvaluatedExample, Measurement, Obstacle
from ul.inference import api, rates
from ul.metrics import likelihood, rate_split, reconstruction
from ul.objectives import held_out
from ul.runs import assemble
from ul.stages.stage import JointDiffusion, Stage

# With fewer examples per dimension a covariance is too uncertain.
EXAMPLES_PER_DIMENSION = 10
MAX_DIMENSIONS = 4096
NUM_MAPS = 16
# Nothing bounds the information in the latents of an imported autoencoder.
NO_RATE = Obstacle(
    "latents without noise have no rate; a stage 2 on them gives base_rate_bpp"
)
NO_DIFFUSIONS = Obstacle("the prior and the decoder are not both diffusions", True)


class RateMeasurement(Measurement):
    """Every term of the objective on held-out images, in bits per pixel.

    For Gaussian data under the UL objective also the exact optimum.
    """

    def __init__(self, run: EvaluatedAutoencoder):
        self._run = run

    @classmethod
    def obstacle(cls, run: EvaluatedAutoencoder) -> Obstacle | None:
        return NO_RATE if run.stage.held_out_objective is None else None

    def result(self) -> dict[str, Any]:
        return self._run.rate_terms | _gaussian_optimum(
            self._run.stage, self._run.datasets
        )

    def protocol(self) -> dict[str, Any]:
        stage = self._run.stage
        draws = stage.evaluation.num_draws
        return {"rate": f"{stage.name}: mean of {draws} draws per example"}


class GaussianPsnrMeasurement(RateMeasurement):
    """The PSNR that Gaussian images of the same covariance have at the measured rate."""

    def result(self) -> dict[str, Any]:
        terms = self._run.rate_terms
        rate_bits = terms["rate_bpp"] * self._run.num_pixels
        samples = self._run.autoencoder.codec.is_diffusion
        bound = _gaussian_psnr_db(self._run.datasets, rate_bits, samples)
        return terms | {"gaussian_psnr_db": bound}

    def protocol(self) -> dict[str, Any]:
        return {}


class BoundMeasurement(Measurement):
    """An upper bound on the negative log-likelihood, in bits per dimension."""

    def __init__(self, run: EvaluatedAutoencoder):
        self._run = run
        self._nats: list[np.ndarray] = []

    @classmethod
    def obstacle(cls, run: EvaluatedAutoencoder) -> Obstacle | None:
        return NO_DIFFUSIONS if run.stage.joint_diffusion is None else None

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        rows = rates.numbered(example["image"], first, self._run.count)
        self._nats.append(_bound_nats(self._run, rows))

    def result(self) -> dict[str, Any]:
        dimensions = int(np.prod(self._run.shape))
        nats = np.concatenate(self._nats)
        mean, sem = likelihood.bits_per_dimension(nats, dimensions)
        return {"bound_bpd": mean, "bound_bpd_sem": sem}


class RateSplitMeasurement(Measurement):
    """The rate by noise level, latent channel and position, with its figures."""

    def __init__(self, run: EvaluatedAutoencoder):
        assert run.stage.joint_diffusion is not None
        self._run, self._diffusions = run, run.stage.joint_diffusion
        self._bits: list[rate_split.RateSplitNats] = []
        self._maps: tuple[np.ndarray, rate_split.RateSplit] | None = None

    @classmethod
    def obstacle(cls, run: EvaluatedAutoencoder) -> Obstacle | None:
        return NO_DIFFUSIONS if run.stage.joint_diffusion is None else None

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        run, images = self._run, example["image"]
        ae, seed = run.autoencoder, run.request.seed
        if self._maps is None:
            # Only these are drawn; a map of one example needs many noise levels.
            drawn = images[:NUM_MAPS]
            self._maps = drawn, split_rate(ae, self._diffusions, drawn, seed, title="")
        rows, key = rates.numbered(images, first, run.count), api.seed_key(seed)
        bits = rates.split_nats(run.stage, ae.params, rows, key, ae.mesh, min_draws=1)
        self._bits.append(dataclasses.replace(bits, by_position=bits.by_position[:0]))

    @functools.cached_property
    def _shares(self) -> rate_split.RateSplit:
        bits = jax.tree.map(lambda *parts: np.concatenate(parts), *self._bits)
        schedule = self._diffusions.prior_schedule
        return rate_split.average_rate_split(bits, schedule, self._run.num_pixels)

    def result(self) -> dict[str, Any]:
        shares = self._shares
        return {
            "bits_by_logsnr": {
                "logsnr": shares.logsnr.tolist(),
                "bpp_per_unit": shares.bpp_by_logsnr.tolist(),
                "sem": shares.bpp_by_logsnr_sem.tolist(),
            },
            "bits_by_channel": {
                "bpp": shares.bpp_by_channel.tolist(),
                "sem": shares.bpp_by_channel_sem.tolist(),
            },
        }

    def figures(self) -> dict[str, bytes]:
        shares = self._shares
        figures = {"bits.png": bit_plots.curves(shares)}
        if self._maps is not None:
            images, split = self._maps
            if images.ndim == 4:
                figures["bit-maps.png"] = bit_plots.maps(images, split.bpp_by_position)
        return figures


class BaseRateMeasurement(Measurement):
    """Bits per pixel of held-out latents under the stage-2 model."""

    def __init__(self, run: EvaluatedGenerator):
        self._run = run

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        # The entropy of an encoder's own variance would have to be subtracted.
        if run.stage.uses_stage1 and run.autoencoder.codec.is_deterministic:
            return None
        return Obstacle(
            "only a stage 2 whose encoder has no variance of its own has a base rate",
            inherent=True,
        )

    def result(self) -> dict[str, Any]:
        gen, autoencoder = self._run.generator, self._run.autoencoder
        stage, settings = gen.stage, gen.stage.evaluation
        codec, params = autoencoder.codec, autoencoder.params

        def prepare(batch):
            image = batch["image"]
            context = assemble.context_condition(stage, codec, params, image)
            return batch | context | {"z_clean": codec.encode(params, image)}

        assert stage.rate_objective is not None
        moments = held_out.HeldOut(stage.rate_objective, num_draws=settings.num_draws)(
            gen.params,
            gen.datasets.eval_batches(gen.datasets.eval, settings.num_examples),
            api.seed_key(0),
            batch_size=settings.batch_size,
            prepare=prepare,
            mesh=autoencoder.mesh,
        )
        bpp, sem = held_out.bits_per_pixel(moments["rate_nats"], self._run.num_pixels)
        return {"base_rate_bpp": bpp, "base_rate_bpp_sem": sem}


def split_rate(
    ae: api.Autoencoder,
    diffusions: JointDiffusion,
    images: np.ndarray,
    seed: int,
    title: str = "splitting the rate",
) -> rate_split.RateSplit:
    """Return the rate of uint8 images [N, H, W, C] by noise level, channel and position.

    title: name of the progress bar; "" shows none.
    """
    rows, key = rates.numbered(images, 0, len(images)), api.seed_key(seed)
    bits = rates.split_nats(ae.stage, ae.params, rows, key, ae.mesh, title)
    pixels = int(np.prod(ae.image_shape[:-1]))
    return rate_split.average_rate_split(bits, diffusions.prior_schedule, pixels)


def _bound_nats(run: EvaluatedAutoencoder, rows: dict) -> np.ndarray:
    """The likelihood bound of some rows, nats [N]."""
    diffusions, ae = run.stage.joint_diffusion, run.autoencoder
    assert diffusions is not None
    return batching.map_rows(
        lambda image, row, stratum: likelihood.bound_nats(
            diffusions.networks,
            diffusions.prior_schedule,
            diffusions.decoder_schedule,
            ae.params,
            image,
            row,
            stratum,
            api.seed_key(run.request.seed),
            num_draws=ae.stage.evaluation.num_draws,
        ),
        rows,
        batch_size=ae.stage.evaluation.batch_size,
        mesh=ae.mesh,
    )


def _gaussian_optimum(stage: Stage, datasets: Datasets) -> dict[str, float]:
    """Return the exact optimum of UL's objective on Gaussian data; {} for anything else."""
    weighting = stage.weighting
    is_gaussian = stage.name == "joint" and datasets.source_kind == "gaussian"
    if not (is_gaussian and isinstance(weighting, Sigmoid)):
        return {}
    spectrum = {k: datasets.data.source[k] for k in ("exponent", "std")}
    variances = gaussian.coefficient_variances(stage.image_shape, **spectrum).ravel()
    precision = waterfilling.posterior_precision(weighting.factor, weighting.bias)
    num_pixels = int(np.prod(stage.image_shape[:-1]))
    distortion = float(waterfilling.distortion(variances, precision))
    return {
        "optimum_bpp": float(waterfilling.rate_bits(variances, precision)) / num_pixels,
        "optimum_psnr_db": reconstruction.posterior_sample_psnr_db(
            distortion, len(variances)
        ),
    }


def _gaussian_psnr_db(
    datasets: Datasets, rate_bits: float, posterior_samples: bool
) -> float | None:
    """Return the PSNR at that rate if the training images were Gaussian.

    None if the images are too few for their dimensions, or the dimensions too many for one
    covariance.
    """
    dimensions = int(np.prod(datasets.data.image_shape))
    min_examples = EXAMPLES_PER_DIMENSION * dimensions
    too_few = len(datasets.unaugmented_train) < min_examples
    if too_few or dimensions > MAX_DIMENSIONS or rate_bits <= 0:
        return None
    train = datasets.collect("train", max(min_examples, 10_000))["image"]
    variances = reconstruction.covariance_spectrum(train)
    return reconstruction.gaussian_psnr_db(
        variances, rate_bits, posterior_samples=posterior_samples
    )


COMPUTATIONS: dict[str, type[Measurement]] = {
    "rate": RateMeasurement,
    "gaussian_psnr": GaussianPsnrMeasurement,
    "likelihood_bound": BoundMeasurement,
    "rate_split": RateSplitMeasurement,
    "base_rate": BaseRateMeasurement,
}
