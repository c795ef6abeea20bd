"""The parts of a pod that users add: environment, labels, tolerations and volumes."""

import re
from collections.abc import Sequence
from json import dumps  # a JSON string is also a YAML string

from ul.core.errors import ConfigError


def env_lines(values: Sequence[str]) -> list[str]:
    """Return the `env` of the container for NAME=VALUE strings; no line for none."""
    lines = ["env:"] * bool(values)
    for value in values:
        name, _, text = value.partition("=")
        lines += [f"- name: {dumps(name)}", f"  value: {dumps(text)}"]
    return lines


def toleration_lines(values: tuple[str, ...]) -> list[str]:
    """Return the `tolerations` of the pod for KEY[=VALUE]:EFFECT strings.

    Raises:
      ConfigError: one has another form.
    """
    lines = ["tolerations:"] * bool(values)
    for value in values:
        match = re.fullmatch(
            r"([\w./-]+)(=([\w.-]*))?:(NoSchedule|PreferNoSchedule|NoExecute)", value
        )
        if match is None:
            raise ConfigError(
                "--tolerations must be KEY=VALUE:EFFECT or KEY:EFFECT, with the effect "
                f"NoSchedule, PreferNoSchedule or NoExecute; got {value!r}."
            )
        lines += [f"- key: {dumps(match[1])}", f"  effect: {match[4]}"]
        if match[3] is None:
            lines.append("  operator: Exists")
        else:
            lines += ["  operator: Equal", f"  value: {dumps(match[3])}"]
    return lines


def mount_lines(values: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Return the mounts, the volumes and the pod's annotations for KIND:SOURCE:PATH strings.

    KIND is gcs (a bucket by Cloud Storage FUSE), pvc (a claim) or host (a directory of the
    node).

    Raises:
      ConfigError: one has another form.
    """
    mounts: list[str] = []
    volumes: list[str] = []
    for i, value in enumerate(values):
        match = re.fullmatch(r"(gcs|pvc|host):([^:]+):(/[^:]*)", value)
        if match is None:
            raise ConfigError(
                "--mounts must be gcs:BUCKET:/PATH, pvc:CLAIM:/PATH or host:/DIR:/PATH; got "
                f"{value!r}."
            )
        kind, source, path = match[1], match[2], match[3]
        mounts += [f"- name: mount-{i}", f"  mountPath: {dumps(path)}"]
        volumes.append(f"- name: mount-{i}")
        volumes += {
            "gcs": [
                "  csi:",
                "    driver: gcsfuse.csi.storage.gke.io",
                f"    volumeAttributes: {{bucketName: {dumps(source)}}}",
            ],
            "pvc": [f"  persistentVolumeClaim: {{claimName: {dumps(source)}}}"],
            "host": [f"  hostPath: {{path: {dumps(source)}}}"],
        }[kind]
    uses_fuse = any(value.startswith("gcs:") for value in values)
    return mounts, volumes, ['gke-gcsfuse/volumes: "true"'] * uses_fuse
