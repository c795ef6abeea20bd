"""The distance of decoded training images: what samples of a perfect base model would have."""

from typing import Any

from ul.data.datasets import fixed_subset
from ul.evaluation.context import EvaluatedGenerator
from ul.evaluation.measurement import Measurement, Obstacle
from ul.metrics.features import pixels
from ul.metrics.streaming import Comparison, FeatureExtractor, FeatureStatistics

_FEATURES = (pixels.NAME,)


class DecodedMeasurement(Measurement):
    """The pixel Frechet distance of training images that were encoded and decoded.

    It has the count and the reference of `frechet`. What the samples have beyond it is the
    loss of the base model. It is measured where the config has `eval.decoded` or --metrics
    names it, because decoding costs as much as it does for samples.
    """

    def __init__(self, run: EvaluatedGenerator):
        self._run = run

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        if not run.stage.uses_stage1:
            return Obstacle("only the samples of a stage 2 are decoded", inherent=True)
        is_requested = run.request.metrics is not None
        if is_requested or run.generator.stage.evaluation.decoded:
            return None
        return Obstacle("eval.decoded is off", inherent=True)

    def result(self) -> dict[str, Any]:
        run, autoencoder = self._run, self._run.autoencoder
        examples = run.datasets.ordered("train")
        extract = FeatureExtractor(_FEATURES, run.networks, run.mesh)
        outputs = FeatureStatistics(_FEATURES)
        first, chosen = 0, fixed_subset(len(examples), run.count)
        for part in run.datasets.chunks(examples, chosen, "decoding"):
            images = autoencoder.reconstruct(
                part["image"], seed=run.request.seed, first=first
            )
            outputs.add(extract(images))
            first += len(images)
        reference = run.context.training_reference(
            run.datasets, _FEATURES, run.mesh, run.count
        )
        comparison = Comparison(outputs, reference)
        return {"frechet_decoded": comparison.frechet_distance(pixels.NAME)}


COMPUTATIONS = {"decoded": DecodedMeasurement}
