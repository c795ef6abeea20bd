"""Where the trials of a sweep stand, from what their runs write."""

import dataclasses
import json
import shutil
import sys
import time
from typing import Any

from etils import epath

REDRAW_SECONDS = 1.0
# Where no terminal can be rewritten: what runs is said so often.
SAY_SECONDS = 60.0
TAIL_BYTES = 8192
HEAD = ("trial", "state", "step", "bits/pixel", "PSNR dB", "left")


@dataclasses.dataclass(frozen=True)
class Row:
    trial: str
    state: str
    step: str = ""
    rate: str = ""
    psnr: str = ""
    left: str = ""

    def cells(self) -> tuple[str, ...]:
        return (self.trial, self.state, self.step, self.rate, self.psnr, self.left)


def _tail(path: epath.Path) -> list[dict[str, Any]]:
    """The last lines of metrics.jsonl; one cut short is passed over."""
    found = []
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return [record for record in found if isinstance(record, dict)]


def _evaluated(workdir: epath.Path) -> dict[str, Any]:
    """The numbers of a run's evaluations, in one."""
    found: dict[str, Any] = {}
    try:
        for path in sorted((workdir / "evals").glob("*.json")):
            found |= json.loads(path.read_text())
    except (OSError, ValueError):
        pass  # being written
    return found


def _last(lines: list[dict], key: str) -> Any:
    return next((r[key] for r in reversed(lines) if key in r), None)


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def row(out: epath.Path, work) -> Row:
    """A trial's line: bits/pixel as evaluated, before that as trained."""
    stages = work.trial.stages
    first = out / stages[0].workdir
    numbers = _evaluated(first)
    lines = _tail(out / stages[work.stage].workdir / "metrics.jsonl")
    total, step = stages[work.stage].steps, _last(lines, "step") or 0
    rate, psnr = numbers.get("rate_bpp"), numbers.get("psnr_db")
    if rate is None and work.stage == 0:
        rate = _last(lines, "rate_bpp")
    left, speed = "", _last(lines, "steps_per_s")
    state = work.state
    if state in ("training", "evaluating"):
        state = f"{state} s{work.stage + 1}"
    if work.state == "training" and speed:
        left = clock(max(total - step, 0) / speed)
    return Row(
        trial=work.trial.name,
        state=state,
        step=f"{step}/{total}",
        rate="" if rate is None else f"{rate:.3f}",
        psnr="" if psnr is None else f"{psnr:.2f}",
        left=left,
    )


def draw(rows: list[Row]) -> list[str]:
    """Lines of equal columns."""
    table = [HEAD, *(r.cells() for r in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


class Table:
    """Rewritten in place on a terminal; elsewhere a line for every change."""

    def __init__(self, out: epath.Path, jobs: int, *, enabled: bool):
        self._out, self._enabled = out, enabled
        self._file, self._drawn, self._due = sys.stderr, 0, 0.0
        self._states: dict[str, tuple] = {}
        self._began, self._said = time.monotonic(), time.monotonic()

    def show(self, works: list, *, last: bool = False) -> None:
        """Say how the trials stand, if it is time to."""
        if not self._enabled or time.monotonic() < self._due and not last:
            return
        self._due = time.monotonic() + REDRAW_SECONDS
        if self._file.isatty():
            self._rewrite(works)
        else:
            self._say(works, last)

    def _rewrite(self, works: list) -> None:
        size = shutil.get_terminal_size()
        lines = draw([row(self._out, work) for work in works])
        if len(lines) > size.lines - 2:  # what runs, rather than what is over
            live = [w for w in works if w.task] or works
            lines = draw([row(self._out, work) for work in live])[: size.lines - 2]
        lines = [line[: size.columns - 1] for line in [*lines, self._total(works)]]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._file.write(up + "\x1b[J" + "\n".join(lines) + "\n")
        self._file.flush()
        self._drawn = len(lines)

    def _total(self, works: list) -> str:
        done = sum(work.code == 0 for work in works)
        failed = sum(bool(work.code) for work in works)
        took = clock(time.monotonic() - self._began)
        return f"{done} of {len(works)} done, {failed} failed, after {took}"

    def _say(self, works: list, last: bool) -> None:
        now = time.monotonic()
        periodic = now - self._said > SAY_SECONDS
        self._said = now if periodic else self._said
        said = []
        for work in works:
            state = (work.state, work.stage)
            running = periodic and work.task
            if running or self._states.get(work.trial.name, ("waiting", 0)) != state:
                said.append(work)
            self._states[work.trial.name] = state
        lines = draw([row(self._out, work) for work in said])[1:] if said else []
        for line in lines + ([self._total(works)] if last else []):
            print(line, file=self._file, flush=True)
