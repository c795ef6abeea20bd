"""Kubernetes on Google Cloud (GKE): a JobSet on one TPU slice or on GPU nodes."""

import dataclasses
import logging
import subprocess
from pathlib import Path

from launch.gke import slices
from launch.gke.jobset import template_values
from launch.lib.cloud_place import CloudPlace
from launch.lib.jobs import Job
from launch.lib.place import require_settings, setting
from launch.lib.templates import fill

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class GkePlace(CloudPlace):
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
    slices: int = setting(1, "TPU slices of this topology, for mesh.data to span.")
    chips_per_host: int = setting(
        4, "TPU chips of one host; 8 for v5e and v6e hosts with 8 chips."
    )
    nodes: int = setting(1, "Number of GPU nodes.")
    gpus_per_node: int = setting(0, "GPUs of one node.")
    namespace: str = setting("default", "Kubernetes namespace of the JobSet.")
    queue: str = setting("", "Local queue of Kueue that admits the JobSet.")
    grace_seconds: int = setting(120, "Seconds between SIGTERM and SIGKILL for a pod.")
    max_restarts: int = setting(
        20, "Restarts after failures; those after evictions do not count."
    )
    tolerations: tuple[str, ...] = setting(
        (), "KEY=VALUE:EFFECT or KEY:EFFECT: a taint to tolerate; may be repeated."
    )
    mounts: tuple[str, ...] = setting(
        (),
        "gcs:BUCKET:/PATH, pvc:CLAIM:/PATH or host:/DIR:/PATH: data to mount; may be "
        "repeated.",
    )
    kubectl: tuple[str, ...] = setting(
        (), "Any other option of kubectl, for example --kubectl=--context=mine."
    )

    def __post_init__(self) -> None:
        require_settings(image=self.image, accelerator=self.accelerator)
        slices.devices(self)  # refuses settings that contradict each other
        if self.nodes > 1 and self.gpus_per_node:
            log.warning("NCCL uses slow TCP between GPU nodes without GPUDirect")

    @property
    def devices(self) -> str:
        """Return the chips of the slice, or the GPUs of all nodes."""
        return slices.devices(self)

    def render(self, job: Job) -> dict[str, str]:
        """Return the JobSet, see jobset.yaml."""
        job.require_bucket()
        template = Path(__file__).with_name("jobset.yaml")
        return {"jobset.yaml": fill(template, **template_values(self, job))}

    def submit(self, job: Job) -> int:
        """Create the JobSet in the cluster and return kubectl's exit code."""
        jobset = self.render(job)["jobset.yaml"]
        command = [*self.SUBMIT_COMMAND, *self.kubectl]
        return subprocess.run(command, input=jobset, text=True).returncode
