"""The train step of a config, whose batch, mesh and remat policies can be varied."""

import dataclasses
import functools
from typing import Any

import jax

from ul.config import TrainConfig
from ul.config.schema import MeshConfig
from ul.runs import assemble
from ul.stages import kinds, registry
from ul.stages.stage import Stage
from ul.train.loop import UpdateSpec


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """The part of a run that needs neither data nor devices: what a pod plan compiles."""

    _config: TrainConfig

    @functools.cached_property
    def stage(self) -> Stage:
        """The stage."""
        return registry.build(self._config)

    @property
    def batch_size(self) -> int:
        """Examples of the global batch."""
        return self._config.batch_size

    @property
    def steps(self) -> int:
        """Number of optimizer updates of the run."""
        return self._config.steps

    @property
    def accumulate(self) -> int:
        """Microbatches of an update."""
        return self._config.accumulate

    @property
    def dtype(self) -> str:
        """Dtype of the networks' computations."""
        return self._config.dtype

    @property
    def mesh_axes(self) -> tuple[int, int]:
        """Devices on the axes (data, fsdp); -1 takes the rest."""
        return self._config.mesh.data, self._config.mesh.fsdp

    @property
    def remat(self) -> dict[str, str]:
        """The remat policy of each network."""
        sections = {
            name: getattr(self._config, name)
            for name in kinds.NETWORKS
            if hasattr(self._config, name)
        }
        return {name: s["remat"] for name, s in sections.items() if "remat" in s}

    def with_mesh(self, data: int, fsdp: int, num_devices: int) -> "TrainSpec":
        """Return the spec on a mesh of `num_devices` devices; one axis may be -1."""
        if data == -1 and fsdp > 0:
            data = num_devices // fsdp
        elif fsdp == -1 and data > 0:
            fsdp = num_devices // data
        return self._replace(mesh=MeshConfig(data, fsdp))

    def with_batch_size(self, batch_size: int) -> "TrainSpec":
        """Return the spec with another global batch."""
        return self._replace(batch_size=batch_size)

    def with_remat(self, policy: str) -> "TrainSpec":
        """Return the spec with one remat policy for all of its networks."""
        return TrainSpec(kinds.with_networks(self._config, remat=policy))

    def with_attention(self, implementation: str) -> "TrainSpec":
        """Return the spec with one implementation of attention for all networks."""
        return TrainSpec(kinds.with_attention(self._config, implementation))

    def _replace(self, **changes: Any) -> "TrainSpec":
        return TrainSpec(dataclasses.replace(self._config, **changes))

    def make_mesh(self, devices: Any = None) -> jax.sharding.Mesh:
        """Return the mesh over all devices, or over the given ones.

        Raises:
          ConfigError: the batch does not divide over it, or an implementation of attention
            is for another kind of device.
        """
        return assemble.make_mesh(self._config, devices)

    def make_update(self, mesh: jax.sharding.Mesh) -> UpdateSpec:
        """Return the optimizer update on a mesh."""
        return assemble.make_update(self._config, self.stage, mesh)

    def abstract_batch(self, mesh: jax.sharding.Mesh) -> dict:
        """Return shapes, dtypes and shardings of the global batch."""
        return assemble.abstract_batch(self.stage, self.batch_size, mesh)
