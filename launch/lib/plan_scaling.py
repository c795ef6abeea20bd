"""Predict the speed on several slices from the step on one (`ul plan scaling`)."""

from absl import flags

from launch.lib import plan_topology
from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning.pods import scaling, search
from ul.runs.train_spec import TrainSpec

_COUNTS = flags.DEFINE_list(
    "slice_counts", ["1", "2", "4", "8", "16", "32", "64"], "Numbers of slices."
)


def main(config: TrainConfig) -> None:
    """Compile the step for one slice; print the table and what it assumes.

    Raises:
      ConfigError: the numbers are not positive, or the speed of the devices is unknown.
      OutOfMemory: the step does not fit.
    """
    counts, spec = _COUNTS.value, TrainSpec(config)
    if not counts or not all(n.isdigit() and int(n) for n in counts):
        raise ConfigError(f"--slice_counts must be positive integers; got {counts}.")
    meshes = plan_topology.read_meshes(spec)
    if len(meshes) > 1:
        raise ConfigError(f"--mesh must be given once here; got {len(meshes)} meshes.")
    pod = plan_topology.read_topology()
    if pod.chip is None:
        raise ConfigError(
            f"--topology must be of TPUs or GPUs, whose speed is known; got {pod.name}."
        )
    plan = search.plan_on_axes(spec, pod, meshes[0])
    plan_topology.check_memory(plan)
    print(scaling.scaling_table(plan, [int(n) for n in counts]))
    print(f"\n{scaling.assumptions(plan)}")
