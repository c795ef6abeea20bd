"""One page about a sweep: what each trial measured, cost and looks like.

    python -m launch.report runs/sweep
    python -m launch.report runs/sweep --nopredictions

Writes <folder>/report/index.html, one file that needs no network, the plots beside it and
trials.csv. The folder is a sweep's, or any that has run directories in it; what is missing
or damaged is named on the page. Nothing is trained or evaluated; for the planner's
predictions the training images are read.
"""

import sys

from absl import flags

from launch.lib import cli
from ul.sweeps import report

_PREDICTIONS = flags.DEFINE_bool(
    "predictions", True, "Ask the planner, which reads each data set's training images."
)


def main(folder: str) -> None:
    page = report.write(
        folder,
        predict=_PREDICTIONS.value,
        progress=lambda line: print(line, file=sys.stderr),
    )
    print(page)


if __name__ == "__main__":
    cli.run(main, "the folder of a sweep or of runs")
