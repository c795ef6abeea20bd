"""Run many commands quickly: one process imports the project once, and forks for each.

Two seconds of imports per command add up to minutes. A fork prints and exits as
`python -m ul COMMAND` does, but shares the imported modules.
"""

import dataclasses
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Exit code of a command that started JAX's devices, although it must not.
STARTED_DEVICES = 99


@dataclasses.dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def run_all(
    commands: Sequence[Sequence[str]],
    *,
    parse_only: bool = False,
    forbid_devices: bool = False,
    env: dict[str, str] | None = None,
) -> list[Done]:
    """Run commands, as words after `python -m ul`, one after the other.

    parse_only: stop before the command's own work: flags are parsed, configs and sweeps are
      loaded and validated, places are built.
    forbid_devices: exit with STARTED_DEVICES if the command starts JAX's devices.
    """
    options = {"parse_only": parse_only, "forbid_devices": forbid_devices}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "tests.lib.forks", folder],
            input=json.dumps([[list(map(str, c)) for c in commands], options]),
            cwd=ROOT,
            env=(env or os.environ) | {"PYTHONPATH": str(ROOT)},
            text=True,
            check=True,
        )
        return [
            Done(
                int(Path(folder, f"{i}.code").read_text()),
                Path(folder, f"{i}.out").read_text(),
                Path(folder, f"{i}.err").read_text(),
            )
            for i in range(len(commands))
        ]


def _parse_only(main, operand="", **_) -> None:
    """Take the place of `cli.run`: do what comes before the command's own work."""
    from absl import flags

    from launch.lib import arguments, files, help_page, places

    if help_page.is_requested(sys.argv[1:]):
        return
    typed = sys.argv[1:]
    _, operands = arguments.parse(sys.argv, main, operand)
    command = sys.modules["__main__"]
    if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
        command._CONFIG()
    if operand.startswith("the name of a shipped sweep"):
        files.call_user_function("The sweep", operands[0], "get_sweep")
    if isinstance(main, dict) and set(main) == set(places.PLACES):
        command._job(typed[0])
        places.place_from_flags(typed[0])


def _run(prefix: str, words: list[str], parse_only: bool, forbid_devices: bool) -> int:
    """Run a command in this process and return its exit code."""
    from launch.lib import cli
    from ul.core.errors import UserError
    from ul.core.jax_internals import internal_module

    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{prefix}.{kind}", os.O_WRONLY | os.O_CREAT), number)
    if parse_only:
        cli.run = _parse_only
    sys.argv = words
    try:
        runpy.run_module(f"launch.{words[0]}", run_name="__main__", alter_sys=True)
    except UserError as e:  # of _parse_only; a command prints its own
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return e.code
    except SystemExit as e:
        return e.code or 0
    except Exception:  # a command that cannot be imported
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    bridge = internal_module("xla_bridge", "backends_are_initialized")
    started = forbid_devices and bridge.backends_are_initialized()
    return STARTED_DEVICES if started else 0


def _main(folder: str) -> None:
    # Heavy imports, shared by the forks.
    import ul.evaluation
    import ul.runs.session
    import ul.sweeps.report  # noqa: F401

    commands, options = json.load(sys.stdin)
    for i, words in enumerate(commands):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _run(os.path.join(folder, str(i)), words, **options)
            finally:
                os._exit(code)  # at once: the interpreter takes long to clean up
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        Path(folder, f"{i}.code").write_text(str(code))


if __name__ == "__main__":
    _main(sys.argv[1])
