"""Compile the train step for a pod without having one (`ul plan pod`)."""

from absl import flags

from launch.lib import plan_recipe, plan_topology
from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning.pods import report, search
from ul.runs.train_spec import TrainSpec

_SLICES = flags.DEFINE_integer(
    "slices", 1, "Number of such TPU slices, or of such GPU nodes."
)
_SEARCH = flags.DEFINE_bool(
    "search",
    False,
    "Try every combination of --mesh, --batch_per_chip and --remat and rank them.",
)
_BATCHES = flags.DEFINE_list(
    "batch_per_chip",
    [],
    "Batch sizes per chip for --search; if unset, half, once and twice the config's.",
)
_REMATS = flags.DEFINE_list(
    "remat", ["none", "dots", "full"], "Rematerialization policies for --search."
)


def main(config: TrainConfig) -> None:
    """Print the plan, or with --search the ranked plans.

    Raises:
      OutOfMemory: the only plan does not fit; its table is printed before.
    """
    spec = TrainSpec(config)
    meshes = plan_topology.read_meshes(spec)
    batches = _BATCHES.value
    if not all(b.isdigit() and int(b) for b in batches):
        raise ConfigError(f"--batch_per_chip must be positive integers; got {batches}.")
    if not _SEARCH.value and (len(meshes) > 1 or batches):
        several = "Several --mesh flags or --batch_per_chip"
        raise ConfigError(f"{several} require --search; it is not set.")
    pod = plan_topology.read_topology(_SLICES.value)
    if _SEARCH.value:
        sizes = [int(b) for b in batches]
        return print(search.run_search(spec, pod, meshes, _REMATS.value, sizes))
    plan = search.plan_on_axes(spec, pod, meshes[0])
    print(report.format_plan(plan, plan_recipe.online_encoder_flops(config)))
    plan_topology.check_memory(plan)
