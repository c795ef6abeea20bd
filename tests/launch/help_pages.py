"""Print the help pages of many commands in one process, which imports the project once.

    python -m tests.launch.help_pages FOLDER "train --help" "submit slurm --help"

Each command runs in a fork, and FOLDER gets its output (0.out, 0.err, 1.out, ...) and its
exit code (0.code, ...). A command that starts JAX's devices exits with 99.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

import ul.evaluation
import ul.runs.session
import ul.sweeps.report  # noqa: F401  heavy imports, shared by the forks
from ul.core.jax_internals import internal_module


def run(folder: Path, i: int, words: list[str]) -> int:
    """Run a command in this process and return its exit code."""
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{i}.{kind}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.argv = words
    try:
        runpy.run_module(f"launch.{words[0]}", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        return e.code or 0
    except Exception:  # a command that cannot be imported
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    xla_bridge = internal_module("xla_bridge", "backends_are_initialized")
    return 99 if xla_bridge.backends_are_initialized() else 0


if __name__ == "__main__":
    for i, line in enumerate(sys.argv[2:]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(Path(sys.argv[1]), i, line.split())
            finally:
                os._exit(code)  # at once: the interpreter takes long to clean up
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        Path(sys.argv[1], f"{i}.code").write_text(str(code))
