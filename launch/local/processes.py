"""One process of a run on this machine: its command and its log."""

import dataclasses
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from etils import epath

from ul.core import files


@dataclasses.dataclass(frozen=True)
class LocalProcess:
    """A command, its additional environment variables and the file for its output."""

    command: list[str]
    environment: dict[str, str]
    log: Path

    def start(self) -> subprocess.Popen:
        """Start the process; its output is appended to the log.

        Raises:
          StorageError: the log cannot be opened.
        """
        with files.open_to_append(epath.Path(self.log)) as log:
            return subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A terminal would send Ctrl-C to the process a second time.
                start_new_session=True,
            )

    def shell_line(self) -> str:
        """Return the line of a shell script that starts this process."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        output = f">>{shlex.quote(str(self.log))} 2>&1 &"
        return " ".join([*variables, shlex.join(self.command), output])


def free_port() -> int:
    """Return a port of this machine that no process uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def copy_to_terminal(log: Path, start: int) -> int:
    """Write the log from byte `start` to the terminal and return how many bytes."""
    with log.open("rb") as file:
        file.seek(start)
        sys.stdout.buffer.write(new := file.read())
    sys.stdout.flush()
    return len(new)
