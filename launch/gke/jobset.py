"""The values that fill the template jobset.yaml."""

from __future__ import annotations

import dataclasses
from json import dumps  # a JSON string is also a YAML string
from typing import TYPE_CHECKING, Any

from launch.gke import pods
from launch.gke.slices import hosts_and_chips
from launch.lib import environment
from launch.lib.jobs import Job
from launch.lib.templates import name_values

if TYPE_CHECKING:
    from launch.gke import GkePlace

ONE_SLICE = "alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"


def template_values(place: GkePlace, job: Job) -> dict[str, Any]:
    """Return the value of every %{name} in jobset.yaml."""
    selector, metadata, account = {}, [], []
    if place.topology:
        hosts, chips = hosts_and_chips(place.topology, place.chips_per_host)
        limit = f"google.com/tpu: {chips}"
        selector["gke-tpu-accelerator"] = place.accelerator
        selector["gke-tpu-topology"] = place.topology
        metadata += ["annotations:  # all hosts of one slice", f"  {ONE_SLICE}"]
    else:
        hosts, limit = place.nodes, f"nvidia.com/gpu: {place.gpus_per_node}"
        selector["gke-accelerator"] = place.accelerator
    pairs = [label.partition("=") for label in name_values("labels", place.labels)]
    own_labels = [f"  {dumps(name)}: {dumps(value)}" for name, _, value in pairs]
    queue = [f"  kueue.x-k8s.io/queue-name: {dumps(place.queue)}"] * bool(place.queue)
    metadata += ["labels:", *queue, *own_labels] if queue or own_labels else []
    mounts, volumes, annotations = pods.mount_lines(place.mounts)
    pod_metadata = ["  labels:", *(f"  {line}" for line in own_labels)] * bool(
        own_labels
    )
    if annotations:
        pod_metadata += ["  annotations:", *(f"    {line}" for line in annotations)]
    if place.spot:
        selector["gke-spot"] = "true"
    if place.service_account:
        account = [f"serviceAccountName: {dumps(place.service_account)}"]
    # Kubernetes expands $(NAME) in a command; $$ stands for a single $.
    words = [word.replace("$", "$$") for word in job.command()]
    words += _process_flags(place, job, hosts)
    defaults = environment.variables_for(place.accelerator)
    return dataclasses.asdict(place) | dict(
        name=job.name,
        image=dumps(place.image),
        namespace=dumps(place.namespace),
        hosts=hosts,
        resource=limit,
        selector=[f"cloud.google.com/{k}: {dumps(v)}" for k, v in selector.items()],
        metadata=metadata,
        account=account,
        pod_metadata=["metadata:", *pod_metadata] * bool(pod_metadata),
        env=pods.env_lines(environment.merge(defaults, place.env)),
        tolerations=pods.toleration_lines(place.tolerations),
        mounts=mounts,
        volumes=volumes,
        train=[f"- {dumps(word)}" for word in words],
    )


def _process_flags(place: GkePlace, job: Job, hosts: int) -> list[str]:
    """Return the cluster flags; on TPUs JAX reads GKE's environment variables instead."""
    if hosts == 1 or not place.gpus_per_node:
        return []
    return [
        f"--coordinator={job.name}-train-0-0.{job.name}:8476",
        f"--num_processes={hosts}",
        "--process_id=$(JOB_COMPLETION_INDEX)",
    ]
