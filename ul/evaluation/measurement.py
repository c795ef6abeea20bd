"""Measurements: accumulate every output of a run and return metrics.

A `Measurement` gets images in batches and in order. Both evaluations give it the same two
things: output images (reconstructions or samples), and the examples that they belong to
(the originals, or what the samples are conditioned on).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ul.data.datasets import fixed_subset
from ul.evaluation.context import EvaluatedRun
from ul.metrics import reconstruction
from ul.metrics.metric import (
    RECONSTRUCTION,
    FeatureMetric,
    PairMetric,
    required_features,
)
from ul.metrics.streaming import (
    Comparison,
    FeatureExtractor,
    FeatureStatistics,
    Reference,
)

EvaluatedExample = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """The reason why a metric cannot be measured.

    inherent: no run of this kind has the metric. It is then not named as skipped.
    """

    reason: str
    inherent: bool = False


class Measurement:
    """One metric, or all metrics of a kind, measured over the outputs of a run."""

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        """Add the next outputs, uint8 [N, *shape], which begin with number `first`."""

    def result(self) -> dict[str, Any]:
        """Return the numbers, by their keys in the JSON."""
        raise NotImplementedError

    def protocol(self) -> dict[str, Any]:
        """Return the protocol details that the registry does not state."""
        return {}

    def figures(self) -> dict[str, bytes]:
        """Return files to write beside the JSON, by the ends of their names."""
        return {}

    @classmethod
    def obstacle(cls, run: Any) -> Obstacle | None:
        """Return why the metric cannot be measured on this run, or None."""
        return None


class PairMeasurement(Measurement):
    """The metrics that compare each reconstruction with its original."""

    def __init__(self, metrics: Sequence[PairMetric], run: EvaluatedRun):
        self._metrics = metrics
        self._functions = {m.name: _pair_function(m, run) for m in metrics}
        self._values: dict[str, list[np.ndarray]] = {m.name: [] for m in metrics}

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        for name, function in self._functions.items():
            self._values[name].append(np.asarray(function(example["image"], image)))

    def result(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {}
        for metric in self._metrics:
            numbers |= metric.summarize(np.concatenate(self._values[metric.name]))
        return numbers


def _pair_function(metric: PairMetric, run: EvaluatedRun) -> Callable:
    function = metric.values
    if metric.network is not None:
        network = run.networks.get(metric.network).on_mesh(run.mesh)
        function = functools.partial(function, network=network)
    if metric.per_frame:
        function = functools.partial(reconstruction.mean_over_frames, function)
    return function


class FeatureMeasurement(Measurement):
    """The metrics of features, each compared with its reference.

    references: by the names of the metrics. Reconstructions are compared with their
    originals instead.
    """

    def __init__(
        self,
        metrics: Sequence[FeatureMetric],
        run: EvaluatedRun,
        references: Mapping[str, Reference],
    ):
        self._metrics, self._run, self._references = metrics, run, dict(references)
        features = required_features(metrics)
        self._extract = FeatureExtractor(features, run.networks, run.mesh)
        self._outputs = FeatureStatistics(features)
        self._originals: FeatureStatistics | None = None
        if run.evaluation == RECONSTRUCTION:
            self._originals = FeatureStatistics(features)

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        self._outputs.add(self._extract(image))
        if self._originals is not None:
            self._originals.add(self._extract(example["image"]))

    def result(self) -> dict[str, Any]:
        references = self._references
        if self._originals is not None:
            originals = self._originals.as_reference({})
            references = {metric.name: originals for metric in self._metrics}
        # One comparison for each reference: precision and recall share a computation.
        comparisons: dict[int, Comparison] = {}
        numbers: dict[str, Any] = {}
        for metric in self._metrics:
            reference = references.get(metric.name)
            comparison = comparisons.setdefault(
                id(reference), Comparison(self._outputs, reference)
            )
            numbers[metric.columns[0].key] = metric.value(comparison, metric.feature)
            if metric.held_out_key:
                numbers[metric.held_out_key] = self._held_out(metric, reference)
            if metric.decoded_key and self._run.measures_decoded:
                decoded = Comparison(self._decoded, reference)
                numbers[metric.decoded_key] = metric.value(decoded, metric.feature)
            if metric.feature_network is None:
                numbers[f"{metric.name}_features"] = metric.feature
        return numbers

    @functools.cached_property
    def _decoded(self) -> FeatureStatistics:
        """The features of training images that were encoded and decoded.

        They are as many as the samples, if there are as many. What the samples have beyond
        their distance is the loss of the base model.
        """
        run, outputs = self._run, FeatureStatistics(required_features(self._metrics))
        examples = run.datasets.ordered("train")
        first, chosen = 0, fixed_subset(len(examples), run.count)
        for part in run.datasets.chunks(examples, chosen, "decoding"):
            image = run.autoencoder.reconstruct(
                part["image"], seed=run.request.seed, first=first
            )
            outputs.add(self._extract(image))
            first += len(image)
        return outputs

    def _held_out(self, metric: FeatureMetric, reference: Reference | None) -> float:
        """The value of real held-out images in place of the samples."""
        held_out = self._run.context.statistics(
            self._run.datasets, "eval", (metric.feature,), self._run.mesh
        )
        return metric.value(Comparison(held_out, reference), metric.feature)
