"""A run as the user asked for it, whatever place it goes to."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from absl import flags

from ul.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Job:
    """`overrides` are as typed; `trials` are those of a sweep, by name."""

    name: str
    config: str
    workdir: str
    overrides: tuple[str, ...]
    options: tuple[str, ...]
    max_attempts: int
    python: str
    trials: tuple[str, ...] = ()

    def train(self, *place: str) -> list[str]:
        """The train command: the same everywhere, but for what a place must add."""
        head = ["launch.train", "--config", self.config, "--workdir", self.workdir]
        return [self.python, "-m", *head, *self.overrides, *self.options, *place]

    def logs(self) -> Path:
        """Of a launcher on this machine: in the workdir, unless that is a bucket."""
        if "://" in self.workdir:
            return Path("runs/logs", self.name).absolute()
        return Path(self.workdir, "logs").absolute()

    def needs_bucket(self) -> None:
        """Raises ConfigError for a workdir on a disk that goes with its machine."""
        if "://" not in self.workdir:
            raise ConfigError(
                f"--workdir is {self.workdir}, on a disk that goes with the machine; "
                "give a bucket, as gs://name/run"
            )


def run_again(code: int) -> bool:
    """Whether the same command may succeed if run again: the table of README.md."""
    return code in (1, 74, 75, 124) or code >= 128


def overrides(words: list[str]) -> tuple[str, ...]:
    """The `--config.key=value` of a command line, as typed."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if match := re.match(r"--?((?:no)?config\.[\w.]+)(=|$)", word):
            found.append(word)
            name = match[1]
            if not match[2] and name in flags.FLAGS and not flags.FLAGS[name].boolean:
                found.append(following)
    return tuple(found)


def required(**fields: Any) -> None:
    """Raises ConfigError for the first that is empty."""
    for name, value in fields.items():
        if not value:
            raise ConfigError(f"--{name} is missing")


def field(default: Any, text: str) -> Any:
    """A field of a place, and with it a flag."""
    return dataclasses.field(default=default, metadata={"help": text})
