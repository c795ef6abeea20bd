"""A sweep as jobs of a cluster: one SLURM array, or one JobSet for each trial."""

import dataclasses
import hashlib
import re

from launch.gke import GkePlace
from launch.gke.slices import hosts_and_chips
from launch.lib.jobs import Job
from launch.lib.place import Place, submit_jobs
from launch.lib.places import place_from_flags
from ul.core.errors import ConfigError

PLACES = ("slurm", "gke")
MAX_NAME_LENGTH = 40


class SweepJob(Job):
    """`config` is the name or file of the sweep, `workdir` the directory of all its trials."""

    def command(self, *place_flags: str) -> list[str]:
        """Return the sweep command."""
        head = ["ul", "sweep", self.config, "--out", self.workdir]
        return [self.python, "-m", *head, *self.overrides, *self.options, *place_flags]


def kubernetes_name(name: str) -> str:
    """Return a name that Kubernetes accepts; a long one is cut and ends in a digest."""
    short = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(short) <= MAX_NAME_LENGTH:
        return short
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{short[: MAX_NAME_LENGTH - 7].strip('-')}-{digest}"


def split_into_jobs(sweep: SweepJob, place: Place) -> list[SweepJob]:
    """Return the jobs to submit: one array for SLURM, one job for each trial for GKE.

    Raises:
      ConfigError: GKE cannot run the sweep.
    """
    if not isinstance(place, GkePlace):
        return [sweep]
    sweep.require_bucket()
    if place.topology and hosts_and_chips(place.topology, place.chips_per_host)[0] > 1:
        raise ConfigError(
            "--topology must be a slice of one host, because evaluations run on one host; "
            f"got {place.topology}."
        )
    jobs: dict[str, SweepJob] = {}
    for trial in sweep.trials:
        name = kubernetes_name(f"{sweep.name}-{trial}")
        if name in jobs:
            raise ConfigError(
                f"Trial names must remain unique as Kubernetes names; {trial} and another "
                f"trial become {name}. Rename one."
            )
        options = (*sweep.options, f"--trial={trial}")
        jobs[name] = dataclasses.replace(sweep, name=name, options=options, trials=())
    return list(jobs.values())


def submit(sweep: SweepJob, place_name: str, *, dry_run: bool) -> int:
    """Submit the unfinished trials to a place, or print what would be submitted.

    Returns an exit code.
    """
    place = place_from_flags(place_name)
    if not sweep.trials:
        print("All trials are done.")
        return 0
    return submit_jobs(place, split_into_jobs(sweep, place), dry_run=dry_run)
