"""A sweep as jobs of a cluster: one SLURM array, or one JobSet for each trial."""

import dataclasses
from collections.abc import Sequence

from absl import flags

from launch.gke import GkePlace, names
from launch.gke.slices import hosts_and_chips
from launch.lib import job_checks
from launch.lib.jobs import Job
from launch.lib.place import Place, submit_jobs
from launch.lib.places import place_from_flags
from ul.core.errors import ConfigError
from ul.stages import registry
from ul.sweeps import Trial

PLACES = ("slurm", "gke")


class SweepJob(Job):
    """`config` is the name or file of the sweep, `workdir` the directory of all its trials."""

    def command(self, *place_flags: str) -> list[str]:
        """Return the sweep command."""
        head = ["ul", "sweep", self.config, "--out", self.workdir]
        return [self.python, "-m", *head, *self.overrides, *self.options, *place_flags]


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
        name = names.kubernetes_name(f"{sweep.name}-{trial}")
        if name in jobs:
            raise ConfigError(
                f"Trial names must remain unique as Kubernetes names; {trial} and another "
                f"trial become {name}. Rename one."
            )
        options = (*sweep.options, f"--trial={trial}")
        jobs[name] = dataclasses.replace(sweep, name=name, options=options, trials=())
    return list(jobs.values())


def check(sweep: SweepJob, place_name: str, trials: Sequence[Trial]) -> None:
    """Check the trials against a place, before anything is written.

    Raises:
      ConfigError: a trial does not fit the devices or the storage of the place.
    """
    configs = [registry.parse(s.resolved_config) for t in trials for s in t.stages]
    job_checks.check(sweep, place_from_flags(place_name), configs, flags.FLAGS.devices)


def submit(
    sweep: SweepJob, place_name: str, trials: Sequence[Trial], *, dry_run: bool
) -> int:
    """Submit the unfinished trials or print what would be submitted; return an exit code."""
    place, devices = place_from_flags(place_name), flags.FLAGS.devices
    if not trials:
        print("All trials are done.")
        return 0
    # If the user gave --devices, it is among the options already.
    required = () if devices else job_checks.required_devices(place, None)
    sweep = dataclasses.replace(
        sweep, options=(*sweep.options, *required), trials=tuple(t.name for t in trials)
    )
    return submit_jobs(place, split_into_jobs(sweep, place), dry_run=dry_run)
