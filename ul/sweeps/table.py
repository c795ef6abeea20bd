"""The status of a sweep's trials, read from what their runs write."""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from ul.core import files, sealed_json
from ul.core.errors import StorageError
from ul.sweeps.execution import TrialExecution

REDRAW_SECONDS = 1.0
# How often running trials are printed where the terminal cannot be rewritten.
PRINT_SECONDS = 60.0
# The end of metrics.jsonl that is read for the latest values.
TAIL_BYTES = 8192
HEADER = ("trial", "status", "step", "bits/pixel", "PSNR dB", "time left")


@dataclasses.dataclass(frozen=True)
class TrialStatus:
    """One line of the table, as text; unknown values are empty."""

    trial: str
    status: str
    step: str = ""
    rate: str = ""
    psnr: str = ""
    time_left: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells in the order of HEADER."""
        return dataclasses.astuple(self)


def _last_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Return the last lines of metrics.jsonl, without incomplete ones."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return []
    metrics = []
    for line in lines:
        try:
            metrics.append(json.loads(line))
        except ValueError:
            pass
    return [record for record in metrics if isinstance(record, dict)]


def _read_evaluations(workdir: epath.Path) -> dict[str, Any]:
    """Return the results of all evaluations of a run in one dict."""
    results: dict[str, Any] = {}
    try:
        for name in files.names(workdir / "evals", ".json"):
            results |= sealed_json.unseal(files.read_text(workdir / "evals" / name))
    except (StorageError, FileNotFoundError, ValueError):
        pass  # A file is being written, or damaged.
    return results


def _last_value(metrics: list[dict], key: str) -> Any:
    return next((record[key] for record in reversed(metrics) if key in record), None)


def format_duration(seconds: float) -> str:
    """Return 1:02:03 or, under an hour, 2:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def trial_status(out: epath.Path, execution: TrialExecution) -> TrialStatus:
    """Return the line of a trial.

    Bits/pixel are those of the evaluation or, before it, of stage 1's training.
    """
    index, status = execution.stage_index, execution.status
    stages = execution.trial.stages
    results = _read_evaluations(out / stages[0].workdir)
    metrics = _last_metrics(out / stages[index].workdir / "metrics.jsonl")
    total_steps, step = stages[index].steps, _last_value(metrics, "step") or 0
    rate, psnr = results.get("rate_bpp"), results.get("psnr_db")
    if rate is None and index == 0:
        rate = _last_value(metrics, "rate_bpp")
    time_left, steps_per_s = "", _last_value(metrics, "steps_per_s")
    if status == "training" and steps_per_s:
        time_left = format_duration(max(total_steps - step, 0) / steps_per_s)
    if status in ("training", "evaluating"):
        status = f"{status} s{index + 1}"
    return TrialStatus(
        trial=execution.trial.name,
        status=status,
        step=f"{step}/{total_steps}",
        rate="" if rate is None else f"{rate:.3f}",
        psnr="" if psnr is None else f"{psnr:.2f}",
        time_left=time_left,
    )


def format_table(statuses: Sequence[TrialStatus]) -> list[str]:
    """Return the header and a line for each trial, with aligned columns."""
    table = [HEADER, *(status.cells() for status in statuses)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADER))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


class StatusTable:
    """Shows the trials: rewritten in place on a terminal, else one line per change."""

    def __init__(self, out: epath.Path, *, enabled: bool):
        self._out, self._enabled = out, enabled
        self._file, self._num_lines, self._next_update = sys.stderr, 0, 0.0
        self._printed: dict[str, tuple[str, int]] = {}
        self._started_at = self._printed_at = time.monotonic()

    def show(self, executions: Sequence[TrialExecution], *, last: bool = False) -> None:
        """Show the trials, at most once per REDRAW_SECONDS unless it is the last time."""
        if not self._enabled or time.monotonic() < self._next_update and not last:
            return
        self._next_update = time.monotonic() + REDRAW_SECONDS
        if self._file.isatty():
            self._rewrite(executions)
        else:
            self._print_changes(executions, last)

    def _table(self, executions: Sequence[TrialExecution]) -> list[str]:
        return format_table([trial_status(self._out, e) for e in executions])

    def _rewrite(self, executions: Sequence[TrialExecution]) -> None:
        terminal = shutil.get_terminal_size()
        lines = self._table(executions)
        if len(lines) > terminal.lines - 2:  # Running trials matter most.
            running = [e for e in executions if e.command] or executions
            lines = self._table(running)[: terminal.lines - 2]
        lines = [
            line[: terminal.columns - 1] for line in [*lines, self._total(executions)]
        ]
        up = f"\x1b[{self._num_lines}A" if self._num_lines else ""
        self._file.write(up + "\x1b[J" + "\n".join(lines) + "\n")
        self._file.flush()
        self._num_lines = len(lines)

    def _total(self, executions: Sequence[TrialExecution]) -> str:
        done = sum(e.exit_code == 0 for e in executions)
        failed = sum(bool(e.exit_code) for e in executions)
        duration = format_duration(time.monotonic() - self._started_at)
        return f"{done} of {len(executions)} done, {failed} failed, after {duration}"

    def _print_changes(self, executions: Sequence[TrialExecution], last: bool) -> None:
        now = time.monotonic()
        is_periodic = now - self._printed_at > PRINT_SECONDS
        self._printed_at = now if is_periodic else self._printed_at
        changed = []
        for execution in executions:
            name = execution.trial.name
            status = (execution.status, execution.stage_index)
            is_running = is_periodic and execution.command
            if is_running or self._printed.get(name, ("waiting", 0)) != status:
                changed.append(execution)
            self._printed[name] = status
        lines = self._table(changed)[1:] if changed else []
        for line in lines + ([self._total(executions)] if last else []):
            print(line, file=self._file, flush=True)
