"""The wall time of a run by phase, summed over all of its starts.

Each start appends lines to goodput.jsonl in the workdir: one when a phase begins, and one
whenever metrics are logged, with the step. The time between two lines belongs to the phase
of the first one. "Goodput" is the share of the time that trained the model.
"""

import json
import logging
import os
import time
from collections.abc import Iterable
from typing import Any

from etils import epath

from ul.core import markdown, storage

log = logging.getLogger("ul")

FILE = "goodput.jsonl"
# They begin and end many times during training.
_SHORT_PHASES = ("step", "save", "evaluation")
# The names in tables of the phases of train/guard.py.
CATEGORIES = {
    "step": "training",
    "repeated": "repeated training",
    "compile": "compilation",
    "evaluation": "validation",
    "save": "saving",
    "restore": "restoring",
    "start": "starting",
    "stopped": "stopped",
}


def process_start_time() -> float:
    """Return when this process was started, in seconds since 1970."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):  # not Linux: the imports are not counted
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


class GoodputLog:
    """Appends to goodput.jsonl; a failure to write is logged once and stops nothing.

    Records stay in memory until `open` sets the file, and until they can be written.
    """

    def __init__(self) -> None:
        self._path: epath.Path | None = None
        self._is_closed = self._has_failed = False
        self._phase, self._step = "start", 0
        self._unwritten: list[str] = []
        self._write(process_start_time())

    def open(self, workdir: epath.PathLike | None) -> None:
        """Write to a run's workdir; None, in all processes but the first, writes nothing."""
        self._path = None if workdir is None else epath.Path(workdir) / FILE
        self._is_closed = workdir is None
        if self._path is not None and self._path.exists():
            # The first line of a start is not joined to half a line that a kill has left.
            self._unwritten.insert(0, "\n")

    def enter_phase(self, phase: str) -> None:
        """Write that a phase begins."""
        self._phase = phase
        self._write(time.time())

    def add_step(self, step: int) -> None:
        """Write the step that the run has reached."""
        self._step = step
        self._write(time.time(), is_step=True)

    def _write(self, now: float, is_step: bool = False) -> None:
        if self._is_closed:
            return
        record = {"time": round(now, 3), "phase": self._phase, "step": self._step}
        self._unwritten.append(json.dumps(record) + "\n")
        if self._path is None:
            return
        # An object store replaces the whole object, and allows that about once a second.
        if "://" in str(self._path) and self._phase in _SHORT_PHASES and not is_step:
            return
        try:
            with self._path.open("a") as file:
                file.write("".join(self._unwritten))
        except Exception as e:
            if not storage.is_storage_error(e):
                raise
            if not self._has_failed:
                log.warning("%s cannot be written, but training continues: %s", FILE, e)
            self._has_failed = True
        else:
            self._unwritten = []


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Return the records of a run in their order; invalid lines are skipped."""
    path, records = epath.Path(workdir) / FILE, []
    if not path.exists():
        return []
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            record = json.loads(line)
            records.append(
                {
                    "time": float(record["time"]),
                    "phase": str(record["phase"]),
                    "step": int(record["step"]),
                }
            )
        except (ValueError, TypeError, KeyError):  # a kill may leave half a line
            continue
    return records


def seconds_by_category(records: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of each of CATEGORIES between the first and the last record.

    Training that was lost, because the process ended before it was saved, counts as
    repeated; the time between the last record of a process and the start of the next one
    as stopped.
    """
    totals = dict.fromkeys(CATEGORIES, 0.0)
    trained: list[list[float]] = []  # [first step, last step, seconds]
    records = list(records)
    for record, following in zip(records, records[1:], strict=False):
        # The clocks of two machines may differ.
        seconds = max(following["time"] - record["time"], 0.0)
        if following["phase"] == "start":
            totals["stopped"] += seconds
        elif record["phase"] == "step":
            trained.append([record["step"], following["step"], seconds])
        elif record["phase"] in totals:
            totals[record["phase"]] += seconds
        # A start that resumes at an earlier step repeats what came after it.
        # Its restore is complete once a record of that phase has the step.
        if record["phase"] == following["phase"] == "restore":
            for interval in trained:
                totals["repeated"] += _cut(interval, following["step"])
    totals["step"] = sum(seconds for *_, seconds in trained)
    return {CATEGORIES[phase]: seconds for phase, seconds in totals.items()}


def _cut(interval: list[float], step: int) -> float:
    """Shorten an interval to the steps up to `step`; return the seconds that this removes."""
    first, last, seconds = interval
    if last <= step:
        return 0.0
    kept = seconds * (step - first) / (last - first) if step > first else 0.0
    interval[:] = [first, max(first, step), kept]
    return seconds - kept


def table(workdirs: Iterable[str]) -> str:
    """Return a Markdown table of the wall time of runs, or "" if none has recorded it."""
    rows = []
    for workdir in workdirs:
        totals = seconds_by_category(read(workdir))
        wall = sum(totals.values())
        if wall:
            shares = [f"{seconds / wall:.1%}" for seconds in totals.values()]
            rows.append([str(workdir), f"{wall / 3600:.2f} h", *shares])
    header = ["run", "wall time", *CATEGORIES.values()]
    return markdown.table([header, *rows]) if rows else ""
