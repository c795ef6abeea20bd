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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental import serialize_executable

import ul
from ul.core import compile_cache, cpu_features
from ul.core.metrics import Moments

log = logging.getLogger("ul")

# The newest files are kept; `save` removes the others.
MAX_FILES = 16
_DIGEST_BYTES = 32
_ENVIRONMENT_PREFIXES = ("XLA_", "LIBTPU_", "TPU_")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


# Sections of a config that do not change the step.
_IGNORED_SECTIONS = ("log", "validation", "checkpoint", "watchdog", "eval")


def identity(config: dict[str, Any], *measured: Any) -> str:
    """Return a digest of all that a step depends on besides its arguments.

    config: the config of the run as nested dicts. measured: values that the run measured, such
    as the variance of its latents.
    """
    settings = [
        {k: v for k, v in config.items() if k not in _IGNORED_SECTIONS},
        *measured,
    ]
    sources = sorted(Path(ul.__file__).parent.rglob("*.py"))
    flags = {k: str(v) for k, v in jax.config.values.items() if "cache" not in k}
    variables = {
        k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT_PREFIXES)
    }
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    devices = [f"{d.device_kind} {d.client.platform_version}" for d in jax.devices()]
    parts = [settings, flags, variables, versions, devices, cpu_features.digest()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


class StepCache:
    """The file of one step, `(state, batch) -> (state, {name: Moments})`.

    JAX unpickles the file, so whoever can write to the folder can run code; that is also true
    of the compiled programs that lie beside it.

    folder: that of the compiled programs; None if there is none. identity: that of the run;
    empty if the step is not to be kept. The name of the file also depends on the shapes and
    shardings of the arguments. Steps of several processes are not kept, because JAX restores
    them for one.
    """

    def __init__(
        self, folder: epath.PathLike | None, identity: str, state: Any, batch: Any
    ):
        self._arguments = state, batch
        self._file: epath.Path | None = None
        if not identity or not folder or jax.process_count() > 1:
            return
        leaves, structure = jax.tree.flatten(self._arguments)
        shapes = [(leaf.shape, str(leaf.dtype), str(leaf.sharding)) for leaf in leaves]
        text = json.dumps([identity, str(structure), shapes])
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._file = epath.Path(folder) / f"train_step-{key}"

    def load(self) -> jax.stages.Compiled | None:
        """Return the step, or None if there is no file or, which is logged, a damaged one."""
        if self._file is None:
            return None
        try:
            if not self._file.exists():
                return None
            content = self._file.read_bytes()
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
        except Exception as e:  # it is only a cache: whatever is wrong, compile again
            log.warning(
                "the compiled step %s cannot be read (%s); it is compiled again",
                self._file,
                e,
            )
            return None
        compile_cache.SavedTime.seconds += about["seconds"]
        return compiled

    def compile(self, lower: Callable[[], jax.stages.Lowered]) -> jax.stages.Compiled:
        """Lower and compile the step, and save it if it was really compiled.

        A program from JAX's own cache is not saved, because on a CPU it lacks functions when
        it is serialized again.
        """
        started_at, programs = time.monotonic(), compile_cache.SavedTime.programs
        compiled = lower().compile()
        if compile_cache.SavedTime.programs == programs:
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
            part = self._file.with_name(f".{self._file.name}.{os.getpid()}.part")
            part.write_bytes(hashlib.sha256(body).digest() + body)
            part.replace(self._file)
            kept = sorted(
                self._file.parent.glob("train_step-*"),
                key=lambda file: -file.stat().mtime,
            )
            for file in kept[MAX_FILES:]:
                file.unlink(missing_ok=True)
        except Exception as e:
            log.warning("the compiled step cannot be kept in %s: %s", self._file, e)
