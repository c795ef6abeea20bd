"""A sweep of digits' smoke configs, and a stand-in for its commands."""

import os

import pytest

from experiments import sweeps as language
from launch.lib import trials

STAGE1, STAGE2 = "experiments/digits.py:smoke", "experiments/digits.py:smoke2"

# Says what it was called with and ends as `codes/<trial>` says, a line a command: a number,
# or "wait" for a signal. A training that ends well leaves its last step, verified.
COMMAND = """#!/usr/bin/env bash
echo "$@" >>{folder}/calls
module=$2
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
if [[ $module == launch.train && ${{code:-0}} == 0 ]]; then
  touch "$workdir/verified/8.json" "$workdir/checkpoints/8/commit_success.txt"
fi
exit "${{code:-0}}"
"""


@pytest.fixture
def expand():
    """Trials of these points on digits' smoke configs."""

    def expand(*points, sets=(), **how):
        how = dict(stage1=STAGE1, stage2=STAGE2) | how
        return trials.expand(language.trials(list(points), **how), sets)

    return expand


class Commands:
    def __init__(self, folder):
        self.folder, self.executable = folder, str(folder / "python")
        (folder / "codes").mkdir(parents=True)
        script = folder / "python"
        script.write_text(COMMAND.format(folder=folder))
        os.chmod(script, 0o755)

    def end(self, trial, *codes):
        """How the next commands of a trial end."""
        lines = "".join(f"{code}\n" for code in codes)
        (self.folder / "codes" / trial).write_text(lines)

    def calls(self):
        """(main, stage's workdir) of every command so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for words in map(str.split, lines):
            where = words[words.index("--workdir") + 1]
            found.append((words[1], "/".join(where.split("/")[-2:])))
        return found

    @property
    def ready(self):
        return self.folder / "ready"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    from ul.sweeps import runner

    made = Commands(tmp_path / "commands")
    monkeypatch.setattr(runner.sys, "executable", made.executable)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(runner, "IN_USE_SECONDS", 0.05)
    return made
