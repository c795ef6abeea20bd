"""Trials one after the other, each stage by the ordinary commands in its own process."""

import ast
import concurrent.futures
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from ul import build, config
from ul.core.errors import ConfigError, StorageError

PREEMPTED = 75


@dataclasses.dataclass(frozen=True)
class Stage:
    """A config by its name on the command line and resolved; its workdir, and the
    stage 1 below it."""

    name: str
    resolved: Any
    workdir: epath.Path
    below: epath.Path | None = None

    def check(self, sets: Sequence[str]) -> None:
        """Raises ConfigError for what the training command would refuse."""
        resolved = build.plain(self.resolved)
        for pair in sets:
            key, _, value = pair.partition("=")
            *sections, last = key.split(".")
            section = resolved
            for name in sections:
                section = section.get(name, {})
            if last not in section:
                raise ConfigError(f"--set {pair}: {self.name} has no key {key}")
            try:
                section[last] = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                section[last] = value
        config.parse(resolved)

    def commands(self, sets: Sequence[str]) -> list[list[str]]:
        """Train, then evaluate."""
        where = ["--workdir", str(self.workdir)]
        more = [f"--config.stage1.workdir={self.below}"] if self.below else []
        more += [f"--config.{pair}" for pair in sets]
        train = ["launch.train", "--config", self.name, *where, *more]
        return [train, ["launch.evaluate", *where]]


def _run(stages: list[Stage], sets: Sequence[str], log_path: epath.Path) -> int:
    """The exit code of the first command that failed, or 0."""
    with log_path.open("a") as log:
        for stage in stages:
            done = stage.workdir / "evals" / "trial-done"
            for command in [] if done.exists() else stage.commands(sets):
                line = [sys.executable, "-m", *command]
                if code := subprocess.run(line, stdout=log, stderr=log).returncode:
                    return code
            done.touch()
    return 0


def run(
    out: epath.Path, trials: dict[str, list[Stage]], sets: Sequence[str], jobs: int
) -> dict[str, int]:
    """All trials, `jobs` at a time, under a bar: exit codes of those that failed.

    Run again it goes on: what was trained resumes, what was evaluated is passed over.

    Raises:
      ConfigError: a config that training would refuse, before any of them starts; or
        other settings than those the directory was begun with.
      StorageError: the directory cannot be written.
    """
    for stages in trials.values():
        for stage in stages:
            stage.check(sets)
    settings = out / "settings.txt"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text("\n".join(sets))
        begun = settings.read_text()
    except OSError as e:
        raise StorageError(f"{out} cannot be written: {e}") from e
    if begun != "\n".join(sets):
        raise ConfigError(
            f"{out} was begun with --set {begun.split()}, not {list(sets)}; give another --out"
        )
    failed: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {
            pool.submit(_run, stages, sets, out / f"{name}.log"): name
            for name, stages in trials.items()
        }
        try:
            done = concurrent.futures.as_completed(running)
            for future in tqdm(done, total=len(running), unit="trial"):
                if code := future.result():
                    failed[running[future]] = code
                if code == PREEMPTED:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        except BaseException:  # Ctrl-C: what has not begun does not begin
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failed
