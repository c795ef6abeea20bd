"""A sweep as jobs of a cluster: an array of SLURM, a JobSet for each trial."""

import dataclasses
import hashlib
import re
import shlex
import sys

from launch import gke
from launch.gke.slices import hosts_and_chips
from launch.lib import places
from launch.lib.jobs import Job
from ul.core.errors import ConfigError

KINDS = ("slurm", "gke")
MOST_LETTERS = 40


class Sweep(Job):
    """`config` is the sweep's file, `workdir` the directory of all trials."""

    def train(self, *place: str) -> list[str]:
        head = ["launch.sweep", self.config, "--out", self.workdir]
        return [self.python, "-m", *head, *self.overrides, *self.options, *place]


def plain(name: str) -> str:
    """A name as Kubernetes takes it: one that is too long ends in a digest."""
    short = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(short) <= MOST_LETTERS:
        return short
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{short[: MOST_LETTERS - 7].strip('-')}-{digest}"


def jobs(kind: str, sweep: Sweep, place) -> list[Sweep]:
    """What is submitted, one after the other.

    Raises:
      ConfigError: what this place cannot run.
    """
    if kind == "slurm":
        return [sweep]
    sweep.needs_bucket()
    if place.topology and hosts_and_chips(place.topology, place.chips_per_host)[0] > 1:
        raise ConfigError(f"--topology {place.topology}: evaluations need one host")
    alone = {}
    for trial in sweep.trials:
        name = plain(f"{sweep.name}-{trial}")
        if name in alone:
            raise ConfigError(
                f"trial {trial}: another is {name} for Kubernetes as well"
            )
        options = (*sweep.options, f"--trial={trial}")
        alone[name] = dataclasses.replace(sweep, name=name, options=options, trials=())
    return list(alone.values())


def submit(kind: str, sweep: Sweep, *, dry_run: bool) -> int:
    """Submits the trials, or prints exactly what would be: an exit code."""
    place, module = places.read(kind), places.PLACES[kind]
    if not sweep.trials:
        print("all trials are done")
        return 0
    for i, job in enumerate(jobs(kind, sweep, place)):
        if dry_run:
            (text,) = place.render(job).values()
            print("---\n" * (module is gke and i > 0) + text, end="")
            continue
        try:
            if code := place.submit(job):
                return code
        except FileNotFoundError as e:
            raise ConfigError(f"{e.filename} is not installed on this machine") from e
    if dry_run:
        print(f"would run: {shlex.join(module.COMMAND)}", file=sys.stderr)
    return 0
