"""Which numbers of a trial's evaluations stand in the report, and under which heading."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ul.sweeps.report.rows import (
    GENERATION,
    RECONSTRUCTION,
    EvaluationRecord,
    MetricColumn,
    MetricValue,
    TrialResult,
    TrialRow,
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A key of the evaluations. `shown`: in the page's table, not in the CSV alone;
    `drawn`: against bits/pixel; `once`: one value whatever the guidance and the samples."""

    kind: str
    key: str
    title: str
    form: str
    shown: bool = True
    drawn: bool = False
    once: bool = False


# In the order of the table's columns. The pixel features are 8x8 block means.
METRICS = (
    Metric(RECONSTRUCTION, "rate_bpp", "bits/pixel", "{:.3f}"),
    Metric(RECONSTRUCTION, "psnr_db", "PSNR, dB", "{:.2f}", drawn=True),
    Metric(RECONSTRUCTION, "pooled_psnr_db", "pooled PSNR, dB", "{:.2f}", shown=False),
    Metric(RECONSTRUCTION, "gaussian_psnr_db", "Gaussian PSNR", "{:.2f}", shown=False),
    Metric(RECONSTRUCTION, "ssim", "SSIM", "{:.3f}", drawn=True),
    Metric(RECONSTRUCTION, "lpips", "LPIPS", "{:.3f}", drawn=True),
    Metric(RECONSTRUCTION, "rfid", "rFID", "{:.2f}", drawn=True),
    Metric(
        RECONSTRUCTION,
        "reconstruction_frechet",
        "rec. pixel Frechet (not FID)",
        "{:.3f}",
        drawn=True,
    ),
    Metric(RECONSTRUCTION, "bound_bpd", "bound, bits/dim", "{:.3f}", shown=False),
    Metric(GENERATION, "fid", "gFID", "{:.2f}", drawn=True),
    Metric(GENERATION, "sfid", "sFID", "{:.2f}"),
    Metric(GENERATION, "fd_dinov2", "FD-DINOv2", "{:.1f}", drawn=True),
    Metric(GENERATION, "fvd", "FVD", "{:.1f}", drawn=True),
    Metric(GENERATION, "frechet", "gen. pixel Frechet (not FID)", "{:.3f}", drawn=True),
    Metric(GENERATION, "frechet_real", "real pixel Frechet", "{:.3f}", shown=False),
    Metric(GENERATION, "inception_score", "Inception score", "{:.1f}"),
    Metric(GENERATION, "precision", "precision", "{:.3f}"),
    Metric(GENERATION, "recall", "recall", "{:.3f}"),
    Metric(GENERATION, "class_accuracy", "class accuracy", "{:.3f}"),
    Metric(GENERATION, "text_accuracy", "text accuracy", "{:.3f}"),
    Metric(GENERATION, "clip_score", "CLIP score", "{:.2f}"),
    Metric(GENERATION, "base_rate_bpp", "base rate, bits/pixel", "{:.3f}", once=True),
)
PLACES = {m.key: i for i, m in enumerate(METRICS)}
# Named as missing where no trial has them.
EXPECTED = ("psnr_db", "ssim", "lpips", "rfid", "fid")


def metric(column: MetricColumn) -> Metric:
    return METRICS[PLACES[column.metric]]


def values(trial: TrialResult) -> dict[MetricColumn, MetricValue]:
    """Each column's number: of EMA weights if there are any, the newest step, the lowest
    seed; of several such evaluations the one written last."""
    found: dict[MetricColumn, MetricValue] = {}
    for record in _chosen(trial.records):
        for m in METRICS:
            number = _number(record.fields.get(m.key))
            if m.kind != record.kind or number is None:
                continue
            column = _column(m, record)
            if not (m.once and column in found):
                sem = _number(record.fields.get(f"{m.key}_sem"))
                found[column] = MetricValue(number, sem, record)
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _chosen(records: Iterable[EvaluationRecord]) -> list[EvaluationRecord]:
    """For each kind and guidance the newest step's, of EMA weights before others and the
    lowest seed of each count; rising guidance, then as written. Samples that another
    model guided compare with none of these."""
    groups: dict[tuple, list[EvaluationRecord]] = {}
    for r in (r for r in records if r.fields.get("guide") is None):
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
    """A finite number, else None: nothing that is not one is drawn or averaged."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good and math.isfinite(value) else None


def _column(m: Metric, record: EvaluationRecord) -> MetricColumn:
    numbers = record.fields
    printed = numbers.get("printed", {}).get(m.key, m.title)
    if m.once:
        return MetricColumn(PLACES[m.key], m.key, str(printed))
    count = numbers.get("num_examples")
    guidance = record.guidance if m.kind == GENERATION else None
    return MetricColumn(PLACES[m.key], m.key, str(printed), count, guidance)


def columns(rows: Iterable[TrialRow]) -> list[MetricColumn]:
    """All columns that some trial has a number for, in the table's order."""
    return sorted({c for row in rows for c in row.values})


def absent(rows: Iterable[TrialRow]) -> dict[str, str]:
    """Expected metrics nobody has, by title, with the evaluations' own reason."""
    rows = list(rows)
    have = {c.metric for c in columns(rows)}
    reasons: dict[str, str] = {}
    for record in (r for row in rows for r in row.trial.records):
        skipped: Mapping = record.fields.get("skipped", {})
        reasons |= {str(k): str(v) for k, v in skipped.items()}
    expected = [m for m in METRICS if m.key in EXPECTED or m.key in reasons]
    return {
        m.title: reasons.get(m.key, "not measured")
        for m in expected
        if m.key not in have
    }
