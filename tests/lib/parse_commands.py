"""Parse many command lines in one process, which imports the project once.

    python -m tests.lib.parse_commands FOLDER "train --config digits:stage1 --workdir W" ...

Each command runs in a fork up to the point where it has its arguments: flags are parsed,
configs and sweeps are loaded and validated, places are built. FOLDER gets its errors
(0.err, 1.err, ...) and its exit code (0.code, ...).
"""

import os
import runpy
import shlex
import sys
import traceback
from pathlib import Path

from absl import flags

import ul.evaluation
import ul.runs.session
import ul.sweeps.report  # noqa: F401  heavy imports, shared by the forks
from launch.lib import arguments, cli, files, help_page, places
from ul.core.errors import UserError


def _parse_only(main, operand="", **_):
    """Take the place of `cli.run`: do what comes before the command's own work."""
    if help_page.is_requested(sys.argv[1:]):
        return
    typed = sys.argv[1:]
    _, operands = arguments.parse(sys.argv, main, operand)
    command = sys.modules["__main__"]
    if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
        command._CONFIG()
    if operand == "a sweep's file":
        files.call_user_function("A sweep's file", operands[0], "get_sweep")
    if isinstance(main, dict) and set(main) == set(places.PLACES):
        command._job(typed[0])
        places.place_from_flags(typed[0])


def run(folder: Path, i: int, words: list[str]) -> int:
    """Parse a command in this process and return its exit code."""
    error = os.open(folder / f"{i}.err", os.O_WRONLY | os.O_CREAT)
    os.dup2(error, 1)
    os.dup2(error, 2)
    cli.run = _parse_only
    sys.argv = words
    try:
        runpy.run_module(f"launch.{words[0]}", run_name="__main__", alter_sys=True)
    except UserError as e:
        print(f"{type(e).__name__}: {e}")
        return e.code
    except SystemExit as e:
        return e.code or 0
    except Exception:  # a command that cannot be imported
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    for i, line in enumerate(sys.argv[2:]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(Path(sys.argv[1]), i, shlex.split(line))
            finally:
                os._exit(code)  # at once: the interpreter takes long to clean up
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        Path(sys.argv[1], f"{i}.code").write_text(str(code))
