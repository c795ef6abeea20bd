"""Write one page about a sweep: what each trial measured and cost, and its pictures.

    python -m ul report runs/sweep
    python -m ul report runs/sweep --nopredictions

Writes <folder>/report/index.html, one file that needs no network, with the plots and
trials.csv beside it. The folder is that of a sweep, or any that has run directories in it.
The page names what is missing or damaged. Nothing is trained or evaluated; the planner's
predictions read the training images.
"""

import sys

from absl import flags

from launch.lib import cli
from ul.sweeps import report

_PREDICTIONS = flags.DEFINE_bool(
    "predictions",
    True,
    "Add the planner's predictions, which read the training images.",
)


def main(folder: str) -> None:
    """Write the page."""
    page = report.write(
        folder,
        predict=_PREDICTIONS.value,
        progress=lambda line: print(line, file=sys.stderr),
    )
    print(page)


if __name__ == "__main__":
    cli.run(main, "the folder of a sweep or of runs")
