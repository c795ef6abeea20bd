"""Which metrics of a run can be measured, against what, and by which measurements."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ul.core.errors import ConfigError
from ul.evaluation import model_metrics, probes
from ul.evaluation.context import (
    EvaluatedRun,
    changed_splits,
    training_progress,
)
from ul.evaluation.measurement import (
    FeatureMeasurement,
    Measurement,
    Obstacle,
    PairMeasurement,
)
from ul.evaluation.request import select_metrics
from ul.metrics import registry
from ul.metrics.metric import (
    GENERATION,
    FeatureMetric,
    Metric,
    PairMetric,
    RunMetric,
    required_features,
)
from ul.metrics.streaming import Reference

# By the `computation` of a registry row.
COMPUTATIONS: Mapping[str, Any] = model_metrics.COMPUTATIONS | probes.COMPUTATIONS


@dataclasses.dataclass(frozen=True)
class Plan:
    """The metrics to measure, the skipped ones with reasons, and the references by name."""

    metrics: tuple[Metric, ...]
    skipped: Mapping[str, str]
    references: Mapping[str, Reference]


def make_plan(run: EvaluatedRun) -> Plan:
    """Decide before any sampling what can be measured, and against which reference.

    Raises:
      ConfigError: a requested metric cannot be measured, or --reference is of another
        protocol.
      DataError: damaged weights or a damaged reference.
    """
    requested = run.request.metrics
    candidates = registry.metrics(run.evaluation)
    selected = select_metrics(requested, candidates, run.shape)
    obstacles = {m.name: o for m in selected if (o := _obstacle(m, run)) is not None}
    references: dict[str, Reference] = {}
    if run.evaluation == GENERATION:
        referenced = [
            m
            for m in selected
            if isinstance(m, FeatureMetric) and m.referenced and m.name not in obstacles
        ]
        references, lacking = _find_references(run, referenced)
        obstacles |= lacking
    if requested is not None and obstacles:
        name, obstacle = next(iter(obstacles.items()))
        raise ConfigError(
            f"--metrics {name} cannot be measured: {obstacle.reason.rstrip('.')}. To measure "
            "the others, remove it from --metrics."
        )
    return Plan(
        metrics=tuple(m for m in selected if m.name not in obstacles),
        skipped={
            name: obstacle.reason
            for name, obstacle in obstacles.items()
            if not obstacle.inherent
        },
        references=references,
    )


def _obstacle(metric: Metric, run: EvaluatedRun) -> Obstacle | None:
    reason = metric.obstacle(run.shape, run.count, run.networks)
    if reason is not None:
        return Obstacle(reason)
    if isinstance(metric, RunMetric):
        return COMPUTATIONS[metric.computation].obstacle(run)
    return None


def _find_references(
    run: EvaluatedRun, metrics: Sequence[FeatureMetric]
) -> tuple[dict[str, Reference], dict[str, Obstacle]]:
    """Return the references by metric, and the metrics that --reference does not support.

    Without --reference the reference is the run's training images. For features that need
    no network it always is, because reference files of other projects do not have them.
    """
    references: dict[str, Reference] = {}
    lacking: dict[str, Obstacle] = {}
    path = run.request.reference
    if path is not None:
        stored = run.context.file_reference(path, run.shape, run.mesh)
        for m in metrics:
            if stored.has(m.feature):
                references[m.name] = stored
            elif m.feature_network is not None:
                lacking[m.name] = Obstacle(f"{path} has no {m.feature} features")
    own = [m for m in metrics if m.name not in references | lacking]
    if own:
        features = required_features(own)
        training = run.context.training_reference(
            run.datasets, features, run.mesh, run.count
        )
        references |= dict.fromkeys((m.name for m in own), training)
    return references, lacking


def measurements(run: EvaluatedRun, plan: Plan) -> list[Measurement]:
    """Return objects that measure all metrics of a plan."""
    pairs = [m for m in plan.metrics if isinstance(m, PairMetric)]
    features = [m for m in plan.metrics if isinstance(m, FeatureMetric)]
    measured: list[Measurement] = []
    if pairs:
        measured.append(PairMeasurement(pairs, run))
    if features:
        measured.append(FeatureMeasurement(features, run, plan.references))
    measured += [
        COMPUTATIONS[metric.computation](run)
        for metric in plan.metrics
        if isinstance(metric, RunMetric)
    ]
    return measured


def protocol(
    run: EvaluatedRun, plan: Plan, measured: Sequence[Measurement]
) -> dict[str, Any]:
    """Return what a reader must know about the numbers of a plan's metrics."""
    networks = {name for m in plan.metrics if (name := m.feature_network) is not None}
    stated: dict[str, Any] = {
        "training": training_progress(run.request.workdir, run.step),
        "networks": {n: run.networks.get(n).protocol() for n in sorted(networks)},
        "references": _reference_protocols(plan.references),
    }
    if changed := changed_splits(run.request.workdir, run.datasets):
        stated["data"] = f"changed since training: {', '.join(changed)}"
    texts = {m.name: m.describe_protocol(run.shape) for m in plan.metrics}
    stated |= {name: text for name, text in texts.items() if text}
    for measurement in measured:
        stated |= measurement.protocol()
    return stated


def _reference_protocols(references: Mapping[str, Reference]) -> list[dict[str, Any]]:
    """The protocol of each reference once, with the metrics that are compared with it."""
    entries: dict[int, dict[str, Any]] = {}
    for name, reference in references.items():
        new = {"metrics": [], **reference.protocol}
        entries.setdefault(id(reference), new)["metrics"].append(name)
    return list(entries.values())
