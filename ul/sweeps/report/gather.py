"""From a folder to everything its report says."""

from collections.abc import Callable

from etils import epath

from ul.sweeps.report import costs, folder, numbers, predictions, swept
from ul.sweeps.report.rows import GENERATION, Column, Picture, Report, Row, Value


def report(
    path: str, *, predict: bool, progress: Callable[[str], None] = lambda line: None
) -> Report:
    """`predict`: read the training images for the planner's predictions.

    Raises:
      ConfigError, DataError: as folder.read.
    """
    sweep = folder.read(path)
    found, curves, notes = (
        predictions.predict(sweep.trials, progress) if predict else ({}, [], [])
    )
    differences = swept.differences(sweep.trials)
    keys = swept.table(sweep.trials, differences)
    rows = []
    for trial in sweep.trials:
        values = numbers.values(trial)
        series, label = swept.lines(keys, trial.name)
        rows.append(
            Row(
                trial,
                values,
                costs.training(trial),
                found.get(trial.name),
                _pictures(values),
                series,
                label,
            )
        )
    absent = [f"{title}: {why}" for title, why in numbers.absent(rows).items()]
    missing = [
        f"{trial.name}: {why}" for trial in sweep.trials for why in trial.reasons
    ]
    return Report(
        sweep=sweep,
        rows=tuple(rows),
        columns=tuple(numbers.columns(rows)),
        swept=tuple(keys),
        differences=tuple(differences),
        curves=tuple(curves),
        notes=(*missing, *absent, *notes),
    )


def _pictures(values: dict[Column, Value]) -> tuple[Picture, ...]:
    """The picture beside each evaluation that the values come from."""
    records = {v.record.source: v.record for v in values.values()}
    pictures = []
    for source, record in records.items():
        what = "reconstructions"
        if record.kind == GENERATION:
            what = f"samples, guidance {record.guidance:g}"
        title = f"{what}, step {record.numbers['step']}, {record.numbers['weights']}"
        pictures.append(Picture(title, str(epath.Path(source).with_suffix(".png"))))
    return tuple(pictures)
