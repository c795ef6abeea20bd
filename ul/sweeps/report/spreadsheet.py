"""trials.csv: one row for each trial, every number with all its digits."""

import csv
import io
from typing import Any

from ul.sweeps.report import swept
from ul.sweeps.report.rows import MetricColumn, SweepReport, TrialRow

# Source: owasp.org, "CSV Injection".
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def trials(report: SweepReport) -> str:
    """Return the CSV: name, state, overrides, steps, FLOPs and prediction of each trial.

    Then each column of the report with its standard error, and last the evaluations that
    the numbers come from.
    """
    keys = swept.swept_settings(report.sweep.trials, report.differences)
    rows = [_row(report, row, keys) for row in report.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _as_text(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def _as_text(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula.

    A text that begins like one gets an apostrophe, which spreadsheets hide.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_SIGNS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _row(report: SweepReport, row: TrialRow, keys) -> dict[str, Any]:
    name = row.trial.name
    cells: dict[str, Any] = {"trial": name, "state": row.trial.state}
    for key, values in keys.items():
        cells[f"set {key}"] = (
            swept.format_setting(values[name]) if name in values else ""
        )
    for which in ("stage 1", "stage 2"):
        stages = [s for s in row.trial.stages if swept.stage_name(s) == which]
        cells[f"{which} steps"] = stages[0].trained_steps if stages else ""
    cells["training FLOPs stage 1"] = row.cost.stage1
    cells["training FLOPs stage 2"] = row.cost.stage2
    cells["training FLOPs total"] = row.cost.total
    cells["predicted bits/pixel"] = row.prediction.bpp if row.prediction else None
    cells["predicted PSNR, dB"] = (
        row.prediction.sample_psnr_db if row.prediction else None
    )
    for column in report.columns:
        value = row.values.get(column)
        cells[column.key] = value.value if value else None
        if _has_sem(report, column):
            cells[f"{column.key} sem"] = value.sem if value else None
    sources = dict.fromkeys(v.record.path for v in row.values.values())
    cells["evaluations"] = " ".join(sources)
    return cells


def _has_sem(report: SweepReport, column: MetricColumn) -> bool:
    """Whether some trial has a standard error of this column."""
    values = [row.values[column] for row in report.rows if column in row.values]
    return any(value.sem is not None for value in values)
