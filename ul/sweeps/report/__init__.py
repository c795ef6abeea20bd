"""Write the report of a sweep: one HTML page, with plots, pictures and a CSV beside it."""

import datetime
import shlex
from collections.abc import Callable

from etils import epath

from ul.core import files
from ul.core.files import write_atomic
from ul.sweeps.report import gather, page, plots, spreadsheet
from ul.train.writer import save_bytes

__all__ = ["write"]


def write(
    path: str, *, predict: bool, progress: Callable[[str], None] = lambda line: None
) -> str:
    """Write index.html, its plots and trials.csv to <path>/report; return the page's path.

    With `predict` the training images are read for the planner's predictions. `progress`
    receives a line of text before each slow part.

    Raises:
      ConfigError: the folder does not exist.
      DataError: the folder contains no run, or its sweep.json cannot be read.
      StorageError: the report cannot be written.
    """
    report = gather.gather_report(path, predict=predict, progress=progress)
    progress(f"drawing {len(report.rows)} trials")
    figures = plots.all_figures(report)
    directory = epath.Path(path) / "report"
    files.make_directory(directory)
    # An earlier report may have had plots of other metrics.
    for name in (*files.names(directory, ".png"), *files.names(directory, ".svg")):
        files.remove(directory / name)
    for figure in figures:
        save_bytes(directory / f"{figure.name}.png", figure.png)
        save_bytes(directory / f"{figure.name}.svg", figure.svg)
    write_atomic(directory / "trials.csv", spreadsheet.trials(report))
    created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = f"python -m ul report {shlex.quote(path)}"
    command += "" if predict else " --nopredictions"
    write_atomic(
        directory / "index.html", page.render(report, figures, created, command)
    )
    return str(directory / "index.html")
