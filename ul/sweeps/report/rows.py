"""The data behind a report: a sweep, its trials, their runs, evaluations and numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ul.data.datasets import Datasets
from ul.planning.bitrate import BitratePrediction
from ul.stages.stage import Stage

DONE, PARTIAL, FAILED, MISSING = "done", "partial", "failed", "missing"
RECONSTRUCTION, GENERATION = "reconstruction", "generation"


@dataclasses.dataclass(frozen=True)
class EvaluationRecord:
    """The fields of one evaluation's JSON file, and its path in the sweep's folder."""

    path: str
    fields: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Return "reconstruction" or "generation"."""
        # The name of a generation also holds the guidance, which is a field of its own.
        return str(self.fields["evaluation"]).partition("-")[0]

    @property
    def guidance(self) -> float:
        """Return the guidance scale; 1 where none applies."""
        return self.fields.get("guidance") or 1.0


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One run directory of a trial.

    label: the name of its config.
    workdir: its path in the sweep's folder.
    config: the content of config.json, or None if training has not started.
    stage, datasets: built from the config, or None if this version of the code cannot.
    batch_size, configured_steps: from the config, 0 and None if it cannot be read.
    trained_steps: the newest verified step.
    broken: config.json exists but cannot be read.
    """

    label: str
    workdir: str
    overrides: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    stage: Stage | None = None
    datasets: Datasets | None = None
    batch_size: int = 0
    configured_steps: int | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    code: str = ""
    trained_steps: int = 0
    records: tuple[EvaluationRecord, ...] = ()
    problems: tuple[str, ...] = ()
    broken: bool = False

    @property
    def is_stage2(self) -> bool:
        """Whether it is a generator and not an autoencoder; pixel diffusion is one."""
        return self.stage is not None and not self.stage.is_autoencoder


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A trial, its state (done, partial, failed or missing), and why it is not done."""

    name: str
    overrides: Mapping[str, Any]
    stages: tuple[StageRun, ...]
    state: str = MISSING
    reasons: tuple[str, ...] = ()

    @property
    def records(self) -> tuple[EvaluationRecord, ...]:
        """All evaluations of all stages."""
        return tuple(r for stage in self.stages for r in stage.records)


@dataclasses.dataclass(frozen=True)
class SweepRecord:
    """The trials of a sweep, or of any folder of runs if it has no sweep.json."""

    path: str
    title: str
    code: str
    trials: tuple[TrialResult, ...]
    has_sweep_json: bool


@dataclasses.dataclass(frozen=True, order=True)
class MetricColumn:
    """The common properties of the numbers under one heading.

    They are of one metric, printed under one title, over the same number of examples and
    at the same guidance (None for reconstructions). `position` orders the columns.
    """

    position: int
    metric: str
    title: str
    num_examples: int | None = None
    guidance: float | None = None

    @property
    def key(self) -> str:
        """The column's name in trials.csv."""
        parts = [self.metric]
        if self.num_examples is not None:
            parts.append(f"n={self.num_examples}")
        if self.guidance is not None:
            parts.append(f"guidance={self.guidance:g}")
        return "@".join(parts)


@dataclasses.dataclass(frozen=True)
class MetricValue:
    """One number, its standard error if it has one, and the evaluation it is from."""

    value: float
    sem: float | None
    record: EvaluationRecord


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """FLOPs of training (1 MAC = 2 FLOP, forward and backward); None where unknown."""

    stage1: float | None
    stage2: float | None

    @property
    def total(self) -> float | None:
        """The sum of the stages that are known."""
        known = [c for c in (self.stage1, self.stage2) if c is not None]
        return sum(known) if known else None


@dataclasses.dataclass(frozen=True)
class RateDistortionCurve:
    """Rate and PSNR of Gaussian data with one spectrum, point by point."""

    bpp: tuple[float, ...]
    sample_psnr_db: tuple[float, ...]
    mean_psnr_db: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class EvaluationPicture:
    """A picture that an evaluation wrote, with its path in the sweep's folder."""

    title: str
    path: str


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """Everything that the report shows of one trial.

    `series` names the line that the trial is on in the plots, `label` its place on it.
    """

    trial: TrialResult
    values: Mapping[MetricColumn, MetricValue]
    cost: TrainingCost
    prediction: BitratePrediction | None
    pictures: tuple[EvaluationPicture, ...]
    series: str
    label: str

    def rate(self) -> MetricValue | None:
        """Return the bits/pixel over the largest number of examples."""
        rates = [(c, v) for c, v in self.values.items() if c.metric == "rate_bpp"]
        if not rates:
            return None
        return max(rates, key=lambda item: item[0].num_examples or 0)[1]


@dataclasses.dataclass(frozen=True)
class ConfigDifference:
    """A setting that differs between trials: its value by trial name.

    Trials that do not have the setting are absent.
    """

    stage: str
    key: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ReportFigure:
    """A plot: the stem of its file names, what it shows, and both files."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: bytes


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """Everything on the page. `notes` say what is missing and why, one line each."""

    sweep: SweepRecord
    rows: tuple[TrialRow, ...]
    columns: tuple[MetricColumn, ...]
    swept_keys: tuple[str, ...]
    differences: tuple[ConfigDifference, ...]
    curves: tuple[RateDistortionCurve, ...]
    notes: tuple[str, ...]
