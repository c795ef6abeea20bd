"""Layer 7: sweeps: trials of one or two stages, all validated before the first one starts.

expand.py   turns the description in a sweep file into trials with validated configs
records.py  sweep.json and DONE.json: what a sweep consists of, and what is finished
runner.py   runs several trials at a time, each stage by the ordinary commands
table.py    the status of the trials, read from what their runs write
"""

from ul.sweeps.expand import Trial, TrialStage, expand
from ul.sweeps.records import (
    is_trial_finished,
    unfinished_trials,
    write_or_check_sweep,
)
from ul.sweeps.runner import SweepRunner, command_lines

__all__ = [
    "SweepRunner",
    "Trial",
    "TrialStage",
    "command_lines",
    "expand",
    "is_trial_finished",
    "unfinished_trials",
    "write_or_check_sweep",
]
