"""The cache of compiled programs: what a second start saves, and damaged programs."""

import logging
import os
import subprocess
import sys
import types

import pytest
from etils import epath

from launch.lib import compiled
from tests.lib.breaks import Break
from tests.lib.commands import DIGITS, ROOT
from ul.core import compile_cache

# A process of its own, because JAX decides once whether it has a cache.
PROGRAM = """
import logging, sys, time
import jax, jax.numpy as jnp
from ul.core import compile_cache
logging.basicConfig(format="%(message)s", level=logging.INFO)
compile_cache.MIN_COMPILE_SECONDS = 0.0
compile_cache.enable(sys.argv[1])
def function(x):
    for _ in range(30):
        x = jnp.sin(x @ x) + jnp.cumsum(x, axis=0)
    return x
print(float(jax.jit(function)(jnp.ones((8, 8))).sum()))
print(compile_cache.SavedTime.programs, compile_cache.SavedTime.seconds)
"""


def start(folder):
    """Return the number, the programs from the cache and the log of a new process."""
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    environment = {k: v for k, v in environment.items() if "PERSISTENT_CACHE" not in k}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number, saved = done.stdout.splitlines()
    return float(number), int(saved.split()[0]), done.stderr


def test_a_second_start_compiles_nothing_and_damage_is_repaired(tmp_path):
    number, saved, log = start(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert saved == 0 and log == ""
    programs = sorted(folder.glob("jit_function-*"))
    assert len(programs) == 1
    content = programs[0].read_bytes()
    programs[0].write_bytes(content[: len(content) // 2])
    again, _, log = start(tmp_path)
    assert again == number
    assert log.count("\n") == 1 and "jit_function" in log
    assert "it is compiled again" in log
    again, saved, log = start(tmp_path)
    assert again == number and saved >= 1 and log == ""


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 10, -100, -1])
def test_no_damage_gives_another_result(tmp_path, kept):
    number, _, _ = start(tmp_path)
    (program,) = next(tmp_path.iterdir()).glob("jit_function-*")
    content = program.read_bytes()
    program.write_bytes(content[:kept] + bytes(len(content[kept:])))
    again, _, log = start(tmp_path)
    assert again == number and "it is compiled again" in log


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    number, _, log = start(tmp_path / "file")
    assert number and log.count("\n") == 1
    assert "cannot be created, so programs are not cached" in log


def test_only_damage_removes_a_program(tmp_path, monkeypatch, caplog):
    """A lost connection removes none, and a folder that refuses it ends nothing."""
    (tmp_path / "jit_step-abc-cache").write_text("")
    monkeypatch.setattr(compile_cache.warnings, "showwarning", None)
    compile_cache._handle_warnings(epath.Path(tmp_path))
    warn = "Error reading persistent compilation cache entry for 'jit_step': {}: why"

    def show(error):
        text = warn.format(error)
        compile_cache.warnings.showwarning(text, UserWarning, "file", 1)

    with caplog.at_level(logging.WARNING, "ul"):
        show("ConnectionResetError")
        assert len(list(tmp_path.iterdir())) == 1
        with monkeypatch.context() as patch:
            patch.setattr(type(epath.Path(tmp_path)), "glob", lambda *_: 1 / 0)
            show("error")
        show("error")
    assert not list(tmp_path.iterdir()) and "cannot be removed" in caplog.text


def test_commands_that_read_a_run_use_the_programs_of_the_user(tmp_path, monkeypatch):
    enabled = []
    monkeypatch.setattr(compile_cache, "enable", enabled.append)
    holder = types.SimpleNamespace(value=None)
    monkeypatch.setattr(compiled, "_CACHE", holder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.enable()
    assert compiled.directory("w/compile_cache") == "w/compile_cache"
    holder.value = "none"
    compiled.enable()
    assert compiled.directory("w/compile_cache") == ""
    holder.value = "/mine"
    compiled.enable()
    assert enabled == [f"{tmp_path}/unified_latents/compiled", "/mine"]


def test_a_cache_of_the_environment_stays_in_use(tmp_path):
    compile_cache.enable(tmp_path)  # tests have one
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_start_reaches_its_first_step_in_a_third_of_the_time(tmp_path):
    """The CPU time of a whole command that does one step, without the imports."""
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    environment.pop("XLA_FLAGS", None)

    def seconds(*arguments):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "ul", *arguments],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        after = os.times()
        return after.children_user - before.children_user

    def first_step(name):
        return seconds(
            "train",
            f"--config={DIGITS}:stage1",
            "--config.steps=1",
            "--config.validation.every=2",
            f"--workdir={tmp_path / name}",
            f"--compile_cache={tmp_path / 'cache'}",
        )

    first, second = first_step("a"), first_step("b")
    assert second < first / 3


BREAKS = (
    Break(
        "damaged programs that stay",
        "ul/core/compile_cache.py",
        "file.unlink(missing_ok=True)",
        "pass",
        "test_a_second_start_compiles_nothing_and_damage_is_repaired",
    ),
)
