"""Collect everything that the report of a folder shows."""

from collections.abc import Callable

from etils import epath

from ul.sweeps.report import costs, folder, numbers, predictions, swept
from ul.sweeps.report.rows import (
    GENERATION,
    EvaluationPicture,
    MetricColumn,
    MetricValue,
    SweepReport,
    TrialRow,
)


def gather_report(
    path: str, *, predict: bool, progress: Callable[[str], None] = lambda line: None
) -> SweepReport:
    """Read a sweep's folder and compute costs, predictions and differences.

    With `predict` the training images are read for the planner's predictions.

    Raises:
      ConfigError, DataError: as folder.read_sweep does.
    """
    sweep = folder.read_sweep(path)
    by_trial, curves, failures = (
        predictions.predict_trials(sweep.trials, progress) if predict else ({}, [], [])
    )
    differences = swept.config_differences(sweep.trials)
    settings = swept.swept_settings(sweep.trials, differences)
    rows = []
    for trial in sweep.trials:
        values = numbers.values(trial)
        series, label = swept.series_and_label(settings, trial.name)
        rows.append(
            TrialRow(
                trial=trial,
                values=values,
                cost=costs.training_cost(trial),
                prediction=by_trial.get(trial.name),
                pictures=_pictures(values),
                series=series,
                label=label,
            )
        )
    reasons = [f"{t.name}: {reason}" for t in sweep.trials for reason in t.reasons]
    absent = [f"{title}: {reason}" for title, reason in numbers.absent(rows).items()]
    return SweepReport(
        sweep=sweep,
        rows=tuple(rows),
        columns=tuple(numbers.columns(rows)),
        swept_keys=tuple(settings),
        differences=tuple(differences),
        curves=tuple(curves),
        notes=(*reasons, *absent, *failures),
    )


def _pictures(
    values: dict[MetricColumn, MetricValue],
) -> tuple[EvaluationPicture, ...]:
    """Return the picture beside each evaluation that the values come from."""
    records = {v.record.path: v.record for v in values.values()}
    pictures = []
    for path, record in records.items():
        content = "reconstructions"
        if record.kind == GENERATION:
            content = f"samples, guidance {record.guidance:g}"
        step, weights = record.fields["step"], record.fields["weights"]
        title = f"{content}, step {step}, {weights} weights"
        picture = str(epath.Path(path).with_suffix(".png"))
        pictures.append(EvaluationPicture(title, picture))
    return tuple(pictures)
