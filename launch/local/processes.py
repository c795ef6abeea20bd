"""One process of a run on this machine: how it starts, and its log."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Process:
    """A command, what its environment has beside ours, and where its output goes."""

    command: list[str]
    environment: dict[str, str]
    log: Path

    def start(self) -> subprocess.Popen:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )


def show(log: Path, start: int) -> int:
    """Writes what the log has from `start` to the terminal: how many bytes."""
    with log.open("rb") as file:
        file.seek(start)
        sys.stdout.buffer.write(new := file.read())
    sys.stdout.flush()
    return len(new)
