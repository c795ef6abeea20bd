"""A sweep of the smoke configs of digits, and a stand-in for its commands."""

import os

import pytest

from experiments import sweeps as sweep_files
from launch.lib import trials

STAGE1, STAGE2 = "experiments/digits.py:smoke", "experiments/digits.py:smoke2"

# Appends its arguments to `calls`. `codes/<trial>` has one line per command: its exit code,
# or "wait" to wait for a signal. A successful training leaves a verified checkpoint.
COMMAND = """#!/usr/bin/env bash
echo "$@" >>{folder}/calls
module=$3
until [[ $1 == --workdir ]]; do shift; done
workdir=$2
codes={folder}/codes/$(basename "$(dirname "$workdir")")
code=$(head -n 1 "$codes" 2>/dev/null); sed -i 1d "$codes" 2>/dev/null
mkdir -p "$workdir/verified" "$workdir/checkpoints/8"
if [[ $code == wait ]]; then
  trap 'exit 75' TERM
  touch {folder}/ready
  while :; do sleep 0.02; done
fi
if [[ $module == train && ${{code:-0}} == 0 ]]; then
  touch "$workdir/verified/8.json" "$workdir/checkpoints/8/commit_success.txt"
fi
exit "${{code:-0}}"
"""


@pytest.fixture
def expand():
    """A function from points to trials of the smoke configs of digits."""

    def expand(*points, assignments=(), **options):
        options = dict(stage1=STAGE1, stage2=STAGE2) | options
        return trials.expand(sweep_files.trials(list(points), **options), assignments)

    return expand


class FakeCommands:
    """Takes the place of the Python that the sweep's commands run in."""

    def __init__(self, folder):
        self.folder, self.executable = folder, str(folder / "python")
        (folder / "codes").mkdir(parents=True)
        script = folder / "python"
        script.write_text(COMMAND.format(folder=folder))
        os.chmod(script, 0o755)

    def set_exit_codes(self, trial, *codes):
        """Choose how the next commands of a trial end."""
        lines = "".join(f"{code}\n" for code in codes)
        (self.folder / "codes" / trial).write_text(lines)

    def calls(self):
        """Return (command, <trial>/<stage>) of every command so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = []
        for words in map(str.split, lines):
            workdir = words[words.index("--workdir") + 1]
            calls.append((words[2], "/".join(workdir.split("/")[-2:])))
        return calls

    @property
    def ready(self):
        return self.folder / "ready"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    from ul.sweeps import execution, runner

    commands = FakeCommands(tmp_path / "commands")
    monkeypatch.setattr(runner.sys, "executable", commands.executable)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(execution, "RECHECK_SECONDS", 0.05)
    return commands
