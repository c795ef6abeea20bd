"""Sweeps: trials of one or two stages, checked before the first begins, then run.

expand.py   what a sweep file says -> trials whose every config was validated
records.py  sweep.json and DONE.json: what a directory was begun with, what is done
runner.py   N at a time, each stage by the ordinary commands in its own process
table.py    where they stand, read from what the runs write
"""

from ul.sweeps.expand import Stage, Trial, expand
from ul.sweeps.records import begin, finished, left
from ul.sweeps.runner import Runner, lines

__all__ = [
    "Runner",
    "Stage",
    "Trial",
    "begin",
    "expand",
    "finished",
    "left",
    "lines",
]
