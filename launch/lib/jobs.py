"""A training job as the user requested it, independent of the place where it runs."""

import dataclasses
import re
from pathlib import Path

from absl import flags

from ul.core.errors import ConfigError

# A start that ends sooner may have failed before `ul train` could count it. Launchers give
# up after --max_attempts of them in a row.
SHORT_START_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Job:
    """The train command of a run, in parts.

    overrides: the `--config.KEY=VALUE` arguments as the user typed them.
    options: further flags of the command.
    python: the Python interpreter in the place where the job runs.
    trials: the names of a sweep's trials; empty if the job is one run.
    """

    name: str
    config: str
    workdir: str
    overrides: tuple[str, ...]
    options: tuple[str, ...]
    max_attempts: int
    python: str
    trials: tuple[str, ...] = ()

    def command(self, *place_flags: str) -> list[str]:
        """Return the train command; places differ only in `place_flags`."""
        head = ["ul", "train", "--config", self.config, "--workdir", self.workdir]
        return [self.python, "-m", *head, *self.overrides, *self.options, *place_flags]

    def log_dir(self) -> Path:
        """Return the log directory: in the workdir, or in runs/logs for a bucket."""
        if "://" in self.workdir:
            return Path("runs/logs", self.name).absolute()
        return Path(self.workdir, "logs").absolute()

    def require_bucket(self) -> None:
        """Raise ConfigError if the workdir is on a disk that is deleted with its machine."""
        if not re.match("gs://[^/]+/.", self.workdir):
            raise ConfigError(
                "The workdir must be in a bucket, for example gs://name/run, because the "
                f"disk of the machine is deleted with it; got {self.workdir!r}."
            )


def config_overrides(arguments: list[str]) -> tuple[str, ...]:
    """Return the `--config.KEY=VALUE` arguments of a command line as typed."""
    overrides = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if match := re.match(r"--?((?:no)?config\.[\w.]+)(=|$)", word):
            overrides.append(word)
            name = match[1]
            if not match[2] and name in flags.FLAGS and not flags.FLAGS[name].boolean:
                overrides.append(following)
    return tuple(overrides)
