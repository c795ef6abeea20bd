"""Kubernetes: a JobSet on one TPU slice of GKE, or on GPU nodes."""

import dataclasses
import subprocess
from json import dumps  # its strings are YAML's
from pathlib import Path

from launch.gke.slices import hosts_and_chips
from launch.lib.jobs import Job, field, required
from launch.lib.templates import fill
from ul.core.errors import ConfigError

COMMAND = ["kubectl", "create", "-f", "-"]
PYTHON = "python"
ONE_SLICE = "alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"


@dataclasses.dataclass(frozen=True)
class Place:
    image: str = field("", "Container image, with this repository as its work folder.")
    accelerator: str = field("", "As GKE labels it: tpu-v5p-slice, nvidia-h100-80gb.")
    topology: str = field("", "Of the TPU slice, as 4x4x4.")
    chips_per_host: int = field(4, "TPU chips a host: 8 for v5e and v6e hosts of 8.")
    nodes: int = field(1, "Nodes.")
    gpus_per_node: int = field(0, "GPUs a node.")
    namespace: str = field("default", "Namespace.")
    service_account: str = field("", "Service account, for buckets.")
    queue: str = field("", "Kueue's local queue.")
    spot: bool = field(False, "Spot capacity.")
    grace_seconds: int = field(120, "From SIGTERM to SIGKILL.")

    def __post_init__(self) -> None:
        required(image=self.image, accelerator=self.accelerator)
        if bool(self.topology) == bool(self.gpus_per_node):
            raise ConfigError("give --topology for TPUs, or --gpus_per_node for GPUs")

    def render(self, job: Job) -> dict[str, str]:
        job.needs_bucket()
        kind = "gke-tpu-accelerator" if self.topology else "gke-accelerator"
        selector = {f"cloud.google.com/{kind}": self.accelerator}
        place, metadata = [], []
        if self.topology:
            hosts, chips = hosts_and_chips(self.topology, self.chips_per_host)
            limit = f"google.com/tpu: {chips}"
            selector["cloud.google.com/gke-tpu-topology"] = self.topology
            metadata += ["annotations:  # all hosts of one slice", f"  {ONE_SLICE}"]
        else:
            hosts, limit = self.nodes, f"nvidia.com/gpu: {self.gpus_per_node}"
        # On TPUs JAX finds the others in what GKE puts into the environment.
        if hosts > 1 and self.gpus_per_node:
            place += [f"--coordinator={job.name}-train-0-0.{job.name}:8476"]
            place += [f"--num_processes={hosts}"]
            place += ["--process_id=$(JOB_COMPLETION_INDEX)"]
        if self.queue:
            metadata += ["labels:", f"  kueue.x-k8s.io/queue-name: {dumps(self.queue)}"]
        if self.spot:
            selector["cloud.google.com/gke-spot"] = "true"
        account = f"serviceAccountName: {dumps(self.service_account)}"
        # Kubernetes reads $(NAME) in a command; a doubled $ stands for itself.
        words = [word.replace("$", "$$") for word in job.train()] + place
        values = dataclasses.asdict(self) | dict(
            name=job.name,
            image=dumps(self.image),
            namespace=dumps(self.namespace),
            max_attempts=job.max_attempts,
            hosts=hosts,
            resource=limit,
            selector=[f"{name}: {dumps(value)}" for name, value in selector.items()],
            metadata=metadata,
            account=[account] if self.service_account else [],
            train=[f"- {dumps(word)}" for word in words],
        )
        return {"jobset.yaml": fill(Path(__file__).with_name("jobset.yaml"), **values)}

    def submit(self, job: Job) -> int:
        text = self.render(job)["jobset.yaml"]
        return subprocess.run(COMMAND, input=text, text=True).returncode
