"""The values that fill the templates queue.sh and worker.sh."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from launch.lib import environment, shipped
from launch.lib.jobs import SHORT_START_SECONDS, Job
from launch.lib.templates import name_values, options, shell_words

if TYPE_CHECKING:
    from launch.tpu_vm import TpuVmPlace


def template_values(place: TpuVmPlace, job: Job) -> dict[str, Any]:
    """Return the value of every %{name} in the two scripts."""
    request = (
        options(
            accelerator_type=place.accelerator,
            runtime_version=place.runtime,
            service_account=place.service_account,
            valid_until_duration=place.valid_until,
        )
        + options(labels=",".join(name_values("labels", place.labels)))
        + ["--spot"] * place.spot
        + list(place.gcloud)
    )
    defaults = environment.variables_for(place.accelerator)
    return dict(
        name=job.name,
        root=shlex.quote(str(shipped.ROOT)),
        location=shell_words(options(zone=place.zone, project=place.project)),
        request=[" \\\n    ".join(shell_words(request))],
        poll_seconds=place.poll_seconds,
        max_attempts=job.max_attempts,
        short_seconds=SHORT_START_SECONDS,
        env=[
            f"export {shlex.quote(v)}" for v in environment.merge(defaults, place.env)
        ],
        train=shell_words(job.command()),
    )
