"""The interface of a place where jobs run, and how jobs are submitted to it."""

import abc
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from launch.lib.jobs import Job
from ul.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Place(abc.ABC):
    """The settings of a place. Each field is also a flag of `ul submit PLACE`.

    SUBMIT_COMMAND: the program that receives the first rendered file.
    PYTHON: the Python interpreter in that place, unless --python names another.
    """

    SUBMIT_COMMAND: ClassVar[tuple[str, ...]]
    PYTHON: ClassVar[str]

    @property
    @abc.abstractmethod
    def devices(self) -> str:
        """Return platform:count of all processes, as --devices; "" if it is not known."""

    @abc.abstractmethod
    def render(self, job: Job) -> dict[str, str]:
        """Return the contents of the files to submit, by file name."""

    @abc.abstractmethod
    def submit(self, job: Job) -> int:
        """Submit the job, or run it here, and return an exit code."""


def setting(default: Any, help_text: str) -> Any:
    """Return a dataclass field of a place with the help text of its flag."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def require_settings(**settings: Any) -> None:
    """Raise ConfigError for the first setting that is empty."""
    for name, value in settings.items():
        if not value:
            raise ConfigError(
                f"--{name} is required, but it is not set. Pass --{name}=VALUE (--help "
                "explains it)."
            )


def submit_jobs(place: Place, jobs: Sequence[Job], *, dry_run: bool) -> int:
    """Submit the jobs one after the other, or print what would be submitted.

    Returns the first exit code that is not 0, and submits no further job after it.

    Raises:
      ConfigError: the program that submits is not installed.
    """
    for i, job in enumerate(jobs):
        if dry_run:
            files = place.render(job)
            texts = [
                f"==> {name} <==\n{text}" if len(files) > 1 else text
                for name, text in files.items()
            ]
            print("---\n" * (i > 0), *texts, sep="", end="")
            continue
        try:
            if code := place.submit(job):
                return code
        except FileNotFoundError as e:
            raise ConfigError(
                f"{e.filename} is not installed here. Install it, or use --dry-run."
            ) from e
    if dry_run:
        print(f"would run: {shlex.join(place.SUBMIT_COMMAND)}", file=sys.stderr)
    return 0
