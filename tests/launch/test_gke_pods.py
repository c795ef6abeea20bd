"""Environment, labels, tolerations and mounts reach the pods of a rendered JobSet."""

import pytest
import yaml

from launch.gke import GkePlace
from ul.core.errors import ConfigError

BASE = dict(image="i", accelerator="tpu-v5p-slice", topology="4x4x4")


def render(job, **settings):
    text = GkePlace(**BASE | settings).render(job("gs://b/s1"))["jobset.yaml"]
    jobset = yaml.safe_load(text)
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return jobset, replicated["template"]["spec"]["template"]


def test_environment_labels_tolerations_and_mounts_reach_the_pod(job):
    jobset, template = render(
        job,
        env=("HF_TOKEN=a=b", "X="),
        labels=("team=vision",),
        queue="main",
        tolerations=("google.com/tpu=present:NoSchedule", "spot:NoExecute"),
        mounts=("gcs:my-bucket:/data", "pvc:claim:/scratch", "host:/mnt/ssd:/ssd"),
    )
    assert jobset["metadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": "main",
        "team": "vision",
    }
    assert template["metadata"]["labels"] == {"team": "vision"}
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    spec = template["spec"]
    (container,) = spec["containers"]
    assert container["env"] == [
        {
            "name": "LIBTPU_INIT_ARGS",
            "value": "--xla_tpu_scoped_vmem_limit_kib=65536",
        },
        {"name": "HF_TOKEN", "value": "a=b"},
        {"name": "X", "value": ""},
    ]
    assert spec["tolerations"] == [
        {
            "key": "google.com/tpu",
            "effect": "NoSchedule",
            "operator": "Equal",
            "value": "present",
        },
        {"key": "spot", "effect": "NoExecute", "operator": "Exists"},
    ]
    paths = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert paths == {
        "shared-memory": "/dev/shm",
        "mount-0": "/data",
        "mount-1": "/scratch",
        "mount-2": "/ssd",
    }
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    assert volumes["mount-0"]["csi"]["volumeAttributes"] == {"bucketName": "my-bucket"}
    assert volumes["mount-1"] == {"persistentVolumeClaim": {"claimName": "claim"}}
    assert volumes["mount-2"] == {"hostPath": {"path": "/mnt/ssd"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": ("NAME",)}, "--env must be NAME=VALUE; got 'NAME'"),
        ({"labels": ("=x",)}, "--labels must be NAME=VALUE"),
        ({"tolerations": ("spot",)}, "--tolerations must be KEY=VALUE:EFFECT"),
        ({"mounts": ("bucket:/data",)}, "--mounts must be gcs:BUCKET:/PATH"),
    ],
)
def test_other_forms_are_refused(job, settings, message):
    with pytest.raises(ConfigError, match=message):
        render(job, **settings)


def test_only_evictions_restart_without_a_limit(job):
    jobset, _ = render(job, max_restarts=7)
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    actions = {rule["name"]: rule["action"] for rule in policy["rules"]}
    assert actions == {
        "evicted": "RestartJobSetAndIgnoreMaxRestarts",
        "runAgain": "RestartJobSet",
        "stop": "FailJobSet",
    }


def test_slow_networks_between_gpu_nodes_are_mentioned(job, caplog):
    GkePlace(image="i", accelerator="nvidia-h100-80gb", nodes=2, gpus_per_node=8)
    assert "NCCL uses slow TCP" in caplog.text
