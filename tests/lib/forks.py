"""Run many commands quickly: one process imports the project once, and forks for each.

Two to five seconds of imports per command add up to minutes. A fork prints and exits as
`python -m ul COMMAND` does, but shares the imported modules.
"""

import atexit
import dataclasses
import functools
import gc
import json
import os
import resource
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Exit code of a command that started JAX's devices, although it must not.
STARTED_DEVICES = 99
# A command that takes longer is killed, together with the server.
MAX_SECONDS = 400


@dataclasses.dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


class Server:
    """A process that forks for every command. It never starts JAX's devices itself."""

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lib.forks", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            start_new_session=True,
        )
        atexit.register(self._close)

    def run(
        self,
        words: Sequence[str],
        *,
        parse_only: bool = False,
        forbid_devices: bool = False,
        env: dict[str, str] | None = None,
        one_output: bool = False,
        file_bytes: int | None = None,
        cwd: os.PathLike | str = ROOT,
    ) -> Done:
        """Run a command, given as the words after `python -m ul`.

        parse_only: stop before the command's own work: flags are parsed, configs and
          sweeps are loaded and validated, places are built.
        forbid_devices: exit with STARTED_DEVICES if the command starts JAX's devices.
        env: its whole environment; this process's by default.
        one_output: standard error goes where standard output goes.
        file_bytes: no file may grow beyond this size.
        cwd: the folder in which it runs.
        """
        request = {
            "words": list(map(str, words)),
            "parse_only": parse_only,
            "forbid_devices": forbid_devices,
            "env": dict(env or os.environ),
            "one_output": one_output,
            "file_bytes": file_bytes,
            "cwd": str(cwd),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], MAX_SECONDS)[0]:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"{words} did not end within {MAX_SECONDS} s")
        code = int(self._process.stdout.readline())
        texts = [_take(self._folder / kind) for kind in ("out", "err")]
        return Done(code, *texts)

    def _close(self):
        self._process.communicate()  # the end of its input ends it
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def server() -> Server:
    """Return this process's server, which is started by the first call."""
    return Server()


def run_all(commands: Sequence[Sequence[str]], **options) -> list[Done]:
    """Run commands one after the other, with the options of `Server.run`."""
    return [server().run(words, **options) for words in commands]


def _take(file: Path) -> str:
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return text


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
        command._job(places.place_from_flags(typed[0]))


def _set_environment(env: dict[str, str]) -> None:
    """Change to an environment, also where JAX has read the old one."""
    import jax

    for name, value in env.items():
        option = name.lower()
        if option.startswith("jax_") and value != os.environ.get(name):
            kind = type(getattr(jax.config, option))
            jax.config.update(option, kind(value) if kind in (int, float) else value)
    os.environ.clear()
    os.environ.update(env)


def _run(
    folder: Path, words, parse_only, forbid_devices, env, one_output, file_bytes, cwd
) -> int:
    """Run a command in this process and return its exit code."""
    from launch.lib import cli
    from ul.core.errors import UserError
    from ul.core.jax_internals import internal_module

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    error = folder / ("out" if one_output else "err")
    os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    _set_environment(env)
    os.chdir(cwd)
    if file_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
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


def _serve(folder: Path) -> None:
    # Heavy imports, shared by the forks.
    import matplotlib.backends.backend_agg  # noqa: F401
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401
    import tensorboardX  # noqa: F401

    import launch.lib.cli  # noqa: F401
    import ul.evaluation
    import ul.runs.session
    import ul.sweeps.report  # noqa: F401

    gc.freeze()  # no fork copies what it only looks at for garbage
    gc.set_threshold(100_000, 20, 100)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _run(folder, **json.loads(line))
            finally:
                os._exit(code)  # at once: the interpreter takes long to clean up
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
