"""Cloud TPU VMs: a queued resource that is requested again whenever it is taken away."""

import dataclasses
import subprocess
from pathlib import Path

from launch.lib import shipped
from launch.lib.cloud_place import CloudPlace
from launch.lib.jobs import Job
from launch.lib.place import require_settings, setting
from launch.lib.templates import fill
from launch.tpu_vm import slices
from launch.tpu_vm.scripts import template_values


@dataclasses.dataclass(frozen=True)
class TpuVmPlace(CloudPlace):
    """Render two shell scripts: one that watches the queue, one for every worker."""

    SUBMIT_COMMAND = ("bash", "queue.sh")
    PYTHON = ".venv/bin/python"

    accelerator: str = setting("", "Accelerator type, for example v5p-128. Required.")
    runtime: str = setting(
        "", "TPU software version, for example v2-alpha-tpuv5. Required."
    )
    zone: str = setting("", "Zone of Google Cloud, for example us-east5-a. Required.")
    project: str = setting("", "Google Cloud project; if empty, the one set in gcloud.")
    valid_until: str = setting(
        "", "Give up if the request is not granted within this time, for example 6h."
    )
    poll_seconds: int = setting(60, "Seconds between two checks of the resource.")
    gcloud: tuple[str, ...] = setting(
        (),
        "Any other option of gcloud's request, for example --gcloud=--network=mine; may be "
        "repeated.",
    )

    def __post_init__(self) -> None:
        require_settings(
            accelerator=self.accelerator, runtime=self.runtime, zone=self.zone
        )

    @property
    def devices(self) -> str:
        """Return JAX's devices of the accelerator type; nothing for an unknown type."""
        count = slices.num_devices(self.accelerator)
        return f"tpu:{count}" if count else ""

    def render(self, job: Job) -> dict[str, str]:
        """Return the scripts, see queue.sh and worker.sh."""
        job.require_bucket()
        values = template_values(self, job)
        folder = Path(__file__).parent
        return {n: fill(folder / n, **values) for n in ("queue.sh", "worker.sh")}

    def submit(self, job: Job) -> int:
        """Write the scripts to the log directory, run the first and return its code."""
        shipped.require_clone(
            "tpu_vm sends the committed files of a clone to the workers"
        )
        folder = job.log_dir()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.render(job).items():
            (folder / name).write_text(text)
        return subprocess.run(self.SUBMIT_COMMAND, cwd=folder).returncode
