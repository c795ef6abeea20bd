"""Choose the evaluation values that a report shows, and their columns."""

import math
from collections.abc import Iterable

from ul.metrics import registry
from ul.metrics.metric import GENERATION, ColumnSpec, Metric
from ul.sweeps.report.rows import (
    EvaluationRecord,
    MetricColumn,
    MetricValue,
    TrialResult,
    TrialRow,
)


def metric(column: MetricColumn) -> ColumnSpec:
    """Return what the registry states about a column."""
    return registry.find_column(column.metric)


def values(trial: TrialResult) -> dict[MetricColumn, MetricValue]:
    """Return the number of each column: of EMA weights if there are any, the newest step
    and the lowest seed; of several such evaluations the last one."""
    chosen: dict[MetricColumn, MetricValue] = {}
    places = list(enumerate(registry.columns()))
    for record in _choose(trial.records):
        for place, (owner, registered) in places:
            number = _number(record.fields.get(registered.key))
            if owner.evaluation != record.kind or number is None:
                continue
            column = _column(place, owner, registered, record)
            if not (owner.per_run and column in chosen):
                sem = _number(record.fields.get(f"{registered.key}_sem"))
                chosen[column] = MetricValue(number, sem, record)
    return dict(sorted(chosen.items(), key=lambda item: item[0]))


def _choose(records: Iterable[EvaluationRecord]) -> list[EvaluationRecord]:
    """The evaluations of each kind and guidance whose numbers the report shows.

    Those of the newest step, of EMA weights before others and of the lowest seed for each
    count, by rising guidance and then by date. Samples under autoguidance or
    of another decoder do not compare with these and are left out.
    """
    groups: dict[tuple, list[EvaluationRecord]] = {}
    others = ("autoguidance", "decoder_run")
    for r in (r for r in records if not any(map(r.fields.get, others))):
        groups.setdefault((r.kind, r.guidance), []).append(r)
    kept: list[EvaluationRecord] = []
    for _, group in sorted(groups.items()):
        weights = min((r.fields["weights"] for r in group), key=_by_weights)
        group = [r for r in group if r.fields["weights"] == weights]
        newest = max(r.fields["step"] for r in group)
        group = [r for r in group if r.fields["step"] == newest]
        seeds: dict[int | None, int] = {}
        for r in group:
            count, seed = r.fields.get("num_examples"), r.fields["seed"]
            seeds[count] = min(seed, seeds.get(count, seed))
        kept += [
            r for r in group if r.fields["seed"] == seeds[r.fields.get("num_examples")]
        ]
    return kept


def _by_weights(name: str) -> tuple[bool, bool, str]:
    return name != "ema", not name.startswith("ema"), name


def _number(value) -> float | None:
    """A finite number as a float; None for anything else, which is not shown."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _column(
    place: int, owner: Metric, registered: ColumnSpec, record: EvaluationRecord
) -> MetricColumn:
    numbers = record.fields
    title = str(numbers.get("titles", {}).get(registered.key, registered.title))
    if owner.per_run:
        return MetricColumn(place, registered.key, title)
    count = numbers.get("num_examples")
    guidance = record.guidance if owner.evaluation == GENERATION else None
    return MetricColumn(place, registered.key, title, count, guidance)


def columns(rows: Iterable[TrialRow]) -> list[MetricColumn]:
    """Return all columns that some trial has a number for, in the table's order."""
    return sorted({c for row in rows for c in row.values})


def absent(rows: Iterable[TrialRow]) -> dict[str, str]:
    """Return the metrics that no trial has, by title, with the reason of the evaluations.

    Those that a report is expected to have, and those that an evaluation skipped.
    """
    rows = list(rows)
    present = {c.metric for c in columns(rows)}
    reasons: dict[str, str] = {}
    for record in (r for row in rows for r in row.trial.records):
        reasons |= {str(k): str(v) for k, v in record.fields.get("skipped", {}).items()}
    return {
        m.title: reasons.get(m.name, "not measured")
        for m in registry.metrics()
        if (m.expected or m.name in reasons) and not present & set(m.keys)
    }
