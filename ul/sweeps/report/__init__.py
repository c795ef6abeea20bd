"""The report of a sweep: its trials in one page, with plots, pictures and a CSV."""

import datetime
import shlex
from collections.abc import Callable

from etils import epath

from ul.core.errors import StorageError
from ul.core.files import write_atomic
from ul.sweeps.report import gather, page, plots, spreadsheet
from ul.train.writer import save_bytes

__all__ = ["write"]


def write(
    path: str, *, predict: bool, progress: Callable[[str], None] = lambda line: None
) -> str:
    """<path>/report: index.html, the plots beside it, trials.csv; returns the page.

    `predict`: ask the planner, which reads the training images.

    Raises:
      ConfigError: there is no such folder.
      DataError: nothing in it is a run, or its sweep.json cannot be read.
      StorageError: the report cannot be written.
    """
    report = gather.report(path, predict=predict, progress=progress)
    progress(f"drawing {len(report.rows)} trials")
    figures = plots.all_figures(report)
    where = epath.Path(path) / "report"
    try:
        where.mkdir(parents=True, exist_ok=True)
        for old in where.glob("*.png"):  # of a sweep that had other metrics
            old.unlink()
    except OSError as e:
        raise StorageError(f"{where} cannot be written: {e}") from e
    for figure in figures:
        save_bytes(where / f"{figure.name}.png", figure.png)
    write_atomic(where / "trials.csv", spreadsheet.trials(report))
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = f"python -m launch.report {shlex.quote(path)}"
    command += "" if predict else " --nopredictions"
    write_atomic(where / "index.html", page.render(report, figures, made, command))
    return str(where / "index.html")
