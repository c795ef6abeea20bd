"""Cloud TPU VMs: a queued resource, asked for again when it is taken away."""

import dataclasses
import shlex
import subprocess
from pathlib import Path
from typing import Any

from launch.lib.jobs import ROOT, Job, field, required
from launch.lib.templates import fill, quoted

COMMAND = ["bash", "queue.sh"]
PYTHON = ".venv/bin/python"


@dataclasses.dataclass(frozen=True)
class Place:
    accelerator: str = field("", "Accelerator type, as v5p-128.")
    runtime: str = field("", "TPU software version, as v2-alpha-tpuv5.")
    zone: str = field("", "Zone.")
    project: str = field("", "Project; gcloud's own if unset.")
    service_account: str = field("", "Service account, for buckets.")
    spot: bool = field(False, "Spot capacity.")
    valid_until: str = field("", "Give up if not granted by then, as 6h.")
    poll_seconds: int = field(60, "Between two looks.")

    def __post_init__(self) -> None:
        required(accelerator=self.accelerator, runtime=self.runtime, zone=self.zone)

    def render(self, job: Job) -> dict[str, str]:
        job.needs_bucket()
        where = {"zone": self.zone, "project": self.project}
        request = {
            "accelerator-type": self.accelerator,
            "runtime-version": self.runtime,
            "service-account": self.service_account,
            "valid-until-duration": self.valid_until,
        }
        asked = [f"--{name}={value}" for name, value in request.items() if value]
        asked += ["--spot"] if self.spot else []
        values: dict[str, Any] = dict(
            name=job.name,
            root=shlex.quote(str(ROOT)),
            where=quoted(
                [f"--{name}={value}" for name, value in where.items() if value]
            ),
            request=[" \\\n    ".join(quoted(asked))],
            poll_seconds=self.poll_seconds,
            max_attempts=job.max_attempts,
            train=quoted(job.train()),
        )
        folder = Path(__file__).parent
        return {n: fill(folder / n, **values) for n in ("queue.sh", "worker.sh")}

    def submit(self, job: Job) -> int:
        folder = job.logs()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.render(job).items():
            (folder / name).write_text(text)
        return subprocess.run(COMMAND, cwd=folder).returncode
