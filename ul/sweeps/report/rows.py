"""What a report is about, as plain data: a sweep, its trials, their runs and numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ul.config import PixelDiffusionConfig, Stage2Config, TrainConfig

DONE, PARTIAL, FAILED, MISSING = "done", "partial", "failed", "missing"
RECONSTRUCTION, GENERATION = "reconstruction", "generation"


@dataclasses.dataclass(frozen=True)
class Record:
    """An evaluation's JSON, and where it lies below the sweep's folder."""

    source: str
    numbers: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """ "reconstruction" or "generation"; the guidance is a key of its own."""
        return str(self.numbers["evaluation"]).partition("-")[0]

    @property
    def guidance(self) -> float:
        return self.numbers.get("guidance") or 1.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One run directory. `config` is what config.json has, `parsed` the same if today's
    code can read it; `trained` the newest verified step."""

    label: str
    workdir: str
    overrides: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    parsed: TrainConfig | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    code: str = ""
    trained: int = 0
    records: tuple[Record, ...] = ()
    problems: tuple[str, ...] = ()
    broken: bool = False

    @property
    def on_latents(self) -> bool:
        """It counts as stage 2: a generator that is no autoencoder."""
        return isinstance(self.parsed, Stage2Config | PixelDiffusionConfig)

    @property
    def steps(self) -> int | None:
        return None if self.parsed is None else self.parsed.steps


@dataclasses.dataclass(frozen=True)
class Trial:
    """`state`: done, partial, failed or missing; `reasons` say why it is not done."""

    name: str
    overrides: Mapping[str, Any]
    stages: tuple[Stage, ...]
    state: str = MISSING
    reasons: tuple[str, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(r for stage in self.stages for r in stage.records)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """`listed`: it has a sweep.json; else it is a folder of runs. `path`: as given."""

    path: str
    title: str
    code: str
    trials: tuple[Trial, ...]
    listed: bool


@dataclasses.dataclass(frozen=True, order=True)
class Column:
    """What may stand under one heading: a metric of so many examples, under the name it
    is printed by, at one guidance (None: of reconstructions)."""

    place: int
    metric: str
    title: str
    examples: int | None = None
    guidance: float | None = None

    @property
    def key(self) -> str:
        """The column's name in trials.csv."""
        parts = [self.metric]
        parts += [f"n={self.examples}"] if self.examples is not None else []
        parts += [f"guidance={self.guidance:g}"] if self.guidance is not None else []
        return "@".join(parts)


@dataclasses.dataclass(frozen=True)
class Value:
    """One number, its standard error if there is one, and the record it comes from."""

    value: float
    sem: float | None
    record: Record


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs of training, 1 MAC = 2 FLOP, forward and backward, to the newest step."""

    stage1: float | None
    stage2: float | None

    @property
    def together(self) -> float | None:
        known = [c for c in (self.stage1, self.stage2) if c is not None]
        return sum(known) if known else None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Bits/pixel and PSNR of sampled reconstructions that the planner expects."""

    bpp: float
    psnr_db: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """Gaussian data of one spectrum: PSNR at each rate, of samples and of the mean."""

    bpp: tuple[float, ...]
    sampled_db: tuple[float, ...]
    mean_db: tuple[float, ...]
    what: str


@dataclasses.dataclass(frozen=True)
class Picture:
    title: str
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A trial with all that is known of it. `series`: the line it is drawn on; `label`:
    where on it."""

    trial: Trial
    values: Mapping[Column, Value]
    cost: Cost
    prediction: Prediction | None
    pictures: tuple[Picture, ...]
    series: str
    label: str

    def rate(self) -> Value | None:
        """Bits/pixel, of the most examples."""
        found = [(c, v) for c, v in self.values.items() if c.metric == "rate_bpp"]
        return max(found, key=lambda f: f[0].examples or 0)[1] if found else None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all trials; by trial, absent where it has none."""

    stage: str
    key: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing: `name`.png, and what it shows."""

    name: str
    title: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the page says. `notes`: what is missing and why, one line each."""

    sweep: Sweep
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    swept: tuple[str, ...]
    differences: tuple[Difference, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
