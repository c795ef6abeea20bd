"""Save the compiled train step in a file, so that a restarted run also skips tracing.

JAX's own cache saves only the compilation; tracing and lowering take as long as the rest of a
start. A file is read only if the sources, the versions, the flags, the devices, the config
and the shapes are those with which it was written.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

import ul
from ul.core import compile_cache, cpu_features
from ul.core.metrics import Moments

log = logging.getLogger("ul")

# The most recently used files are kept; `save` removes the others.
MAX_FILES = 16
_DIGEST_BYTES = 32
_ENVIRONMENT_PREFIXES = ("XLA_", "LIBTPU_", "TPU_")
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "numpy", "nvidia-cudnn-cu12",
             "nvidia-cudnn-cu13", "jax-cuda12-pjrt", "jax-cuda13-pjrt")  # fmt: skip
# Sections of a config that do not change the step.
_IGNORED_SECTIONS = ("log", "validation", "checkpoint", "watchdog", "eval")
# Sources that are younger may have changed after their import.
_SECONDS_UNCHANGED = 60.0
_IMPORTED_AT = time.time()


def identity(config: dict[str, Any], *measured: Any) -> str:
    """Return a digest of all that a step depends on besides its arguments.

    It is empty, so that no step is kept, for runs of several processes, where JAX restores
    executables for one, and where the sources changed since shortly before this process
    began or cannot be read.

    config: the config of the run as nested dicts. measured: values that the run measured,
    such as the variance of its latents.
    """
    if jax.process_count() > 1:
        return ""
    settings = {k: v for k, v in config.items() if k not in _IGNORED_SECTIONS}
    variables = {
        k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT_PREFIXES)
    }
    devices = [f"{d.device_kind} {d.client.platform_version}" for d in jax.devices()]
    flags = {k: str(v) for k, v in jax.config.values.items() if "cache" not in k}
    parts: list[Any] = [settings, measured, variables, devices, flags, sys.version]
    try:
        parts += [_versions(), cpu_features.digest(), _source_digests()]
    except OSError as e:
        log.warning("the compiled step is not kept: %s", e)
        return ""
    if parts[-1] is None:
        return ""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _source_digests() -> dict[str, str] | None:
    """Return the digest of each source of this project; None if one changed recently."""
    digests = {}
    for source in sorted(Path(ul.__file__).parent.rglob("*.py")):
        if source.stat().st_mtime > _IMPORTED_AT - _SECONDS_UNCHANGED:
            return None
        digests[str(source)] = hashlib.sha256(source.read_bytes()).hexdigest()
    return digests


class StepCache:
    """The file of one step, `(state, batch) -> (state, {name: Moments})`.

    JAX unpickles the file, so it must belong to this user, and nobody else may write to it.

    folder: that of the compiled programs, on a local file system; None if there is none.
    identity: that of the run; empty if the step is not to be kept. The name of the file also
    depends on the shapes and shardings of the arguments.
    """

    def __init__(
        self, folder: str | Path | None, identity: str, state: Any, batch: Any
    ):
        self._arguments = state, batch
        self._file: Path | None = None
        if not identity or not folder or "://" in str(folder):
            return
        leaves, structure = jax.tree.flatten(self._arguments)
        shapes = [(leaf.shape, str(leaf.dtype), str(leaf.sharding)) for leaf in leaves]
        devices = [_device_order(leaf.sharding) for leaf in leaves]
        text = json.dumps([identity, str(structure), shapes, devices])
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._file = Path(folder) / f"train_step-{key}"

    def load(self) -> jax.stages.Compiled | None:
        """Return the step, or None if there is no file that this user alone has written.

        A damaged file is logged and removed.
        """
        if self._file is None:
            return None
        try:
            if not self._file.exists():
                return None
            status = self._file.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                log.info("%s is not used: others can write to it", self._file)
                return None
            compiled, seconds = self._read(self._file.read_bytes())
        except Exception as e:  # it is only a cache: whatever is wrong, compile again
            log.warning(
                "the compiled step %s cannot be read (%s); it is compiled again",
                self._file,
                e,
            )
            _remove(self._file)
            return None
        _touch(self._file)
        compile_cache.SavedTime.seconds += seconds
        return compiled

    def _read(self, content: bytes) -> tuple[jax.stages.Compiled, float]:
        body = content[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != content[:_DIGEST_BYTES]:
            raise ValueError("its digest differs")
        header, _, payload = body.partition(b"\n")
        about = json.loads(header)
        moments = dict.fromkeys(about["moments"], Moments.empty())
        compiled = serialize_executable.deserialize_and_load(
            payload,
            jax.tree.structure((self._arguments, {})),
            jax.tree.structure((self._arguments[0], moments)),
        )
        return compiled, about["seconds"]

    def compile(self, lower: Callable[[], jax.stages.Lowered]) -> jax.stages.Compiled:
        """Lower and compile the step, and save it.

        On a CPU, a program from JAX's own cache is not saved, because it lacks functions
        when it is serialized again.
        """
        started_at, programs = time.monotonic(), compile_cache.SavedTime.programs
        compiled = lower().compile()
        is_new = compile_cache.SavedTime.programs == programs
        if is_new or jax.default_backend() != "cpu":
            self.save(compiled, time.monotonic() - started_at)
        return compiled

    def save(self, compiled: jax.stages.Compiled, seconds: float) -> None:
        """Save a step that took `seconds` to compile if it is worth it; a failure is logged."""
        if self._file is None or seconds < compile_cache.MIN_COMPILE_SECONDS:
            return
        try:
            payload, _, results = serialize_executable.serialize(compiled)
            _, moments = jax.tree.unflatten(results, range(results.num_leaves))
            about = {"seconds": seconds, "moments": sorted(moments)}
            body = json.dumps(about).encode() + b"\n" + payload
            # Several runs may share the folder.
            part = self._file.with_name(f".{self._file.name}.{uuid.uuid4().hex}")
            part.touch(mode=0o600)
            part.write_bytes(hashlib.sha256(body).digest() + body)
            part.replace(self._file)
            self._remove_old()
        except Exception as e:
            log.warning("the compiled step cannot be kept in %s: %s", self._file, e)

    def _remove_old(self) -> None:
        assert self._file is not None
        folder = self._file.parent
        steps = sorted(folder.glob("train_step-*"), key=lambda f: -os.path.getmtime(f))
        hour_ago = time.time() - 3600.0
        parts = folder.glob(".train_step-*")  # of starts that were killed
        dead = [file for file in parts if os.path.getmtime(file) < hour_ago]
        for file in (*steps[MAX_FILES:], *dead):
            _remove(file)


def _device_order(sharding: jax.sharding.Sharding) -> list[int]:
    devices: list[Any] = sorted(sharding.device_set, key=lambda device: device.id)
    if isinstance(sharding, jax.sharding.NamedSharding):
        devices = sharding.mesh.devices.flatten().tolist()
    return [device.id for device in devices]


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as e:
        log.warning("%s cannot be removed: %s", file, e)


def _touch(file: Path) -> None:
    """Note that a file is in use; a folder that is read-only cannot."""
    try:
        os.utime(file)
    except OSError:
        log.debug("%s cannot be touched", file)
