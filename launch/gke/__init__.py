"""Kubernetes on Google Cloud (GKE): a JobSet on one TPU slice or on GPU nodes."""

import dataclasses
import subprocess
from pathlib import Path

from launch.gke.jobset import template_values
from launch.lib.jobs import Job
from launch.lib.place import Place, require_settings, setting
from launch.lib.templates import fill
from ul.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class GkePlace(Place):
    """Render a JobSet and hand it to kubectl."""

    SUBMIT_COMMAND = ("kubectl", "create", "-f", "-")
    PYTHON = "python"

    image: str = setting(
        "", "Container image whose working directory is this repository. Required."
    )
    accelerator: str = setting(
        "",
        "Accelerator by its GKE label, for example tpu-v5p-slice or nvidia-h100-80gb. "
        "Required.",
    )
    topology: str = setting("", "Topology of the TPU slice, for example 4x4x4.")
    chips_per_host: int = setting(
        4, "TPU chips of one host; 8 for v5e and v6e hosts with 8 chips."
    )
    nodes: int = setting(1, "Number of GPU nodes.")
    gpus_per_node: int = setting(0, "GPUs of one node.")
    namespace: str = setting("default", "Kubernetes namespace of the JobSet.")
    service_account: str = setting(
        "", "Kubernetes service account that may read and write the bucket."
    )
    queue: str = setting("", "Local queue of Kueue that admits the JobSet.")
    spot: bool = setting(False, "Use Spot capacity, which may be taken away.")
    grace_seconds: int = setting(120, "Seconds between SIGTERM and SIGKILL for a pod.")

    def __post_init__(self) -> None:
        require_settings(image=self.image, accelerator=self.accelerator)
        if bool(self.topology) == bool(self.gpus_per_node):
            raise ConfigError(
                "Give either --topology for TPUs, or --gpus_per_node for GPUs; got "
                f"{'both' if self.topology else 'neither'}."
            )

    def render(self, job: Job) -> dict[str, str]:
        """Return the JobSet, see jobset.yaml."""
        job.require_bucket()
        template = Path(__file__).with_name("jobset.yaml")
        return {"jobset.yaml": fill(template, **template_values(self, job))}

    def submit(self, job: Job) -> int:
        """Create the JobSet in the cluster and return kubectl's exit code."""
        jobset = self.render(job)["jobset.yaml"]
        return subprocess.run(self.SUBMIT_COMMAND, input=jobset, text=True).returncode
