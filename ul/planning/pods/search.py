"""Search over batch per chip, remat policy and mesh for the fastest plan that fits."""

import itertools
import sys
from collections.abc import Iterable, Sequence

from ul.core import markdown
from ul.core.errors import ConfigError
from ul.models.remat import POLICIES
from ul.planning.pods import report
from ul.planning.pods.compile import PodPlan, make_plan
from ul.planning.pods.topology import Topology
from ul.runs.train_spec import TrainSpec

Axes = tuple[int, int]  # (data, fsdp)


def plan_on_axes(spec: TrainSpec, topology: Topology, axes: Axes) -> PodPlan:
    """Compile the step for a topology with these mesh axes."""
    return make_plan(spec.with_mesh(*axes, len(topology.devices)), topology)


def candidate_specs(
    spec: TrainSpec,
    num_chips: int,
    meshes: Iterable[Axes],
    policies: Iterable[str],
    batches_per_chip: Sequence[int],
) -> list[TrainSpec]:
    """Return a spec for each combination of mesh, remat policy and batch per chip.

    If `batches_per_chip` is empty, half, once and twice the spec's own are tried.

    Raises:
      ConfigError: a remat policy does not exist.
    """
    policies = list(policies)
    if unknown := set(policies) - set(POLICIES):
        raise ConfigError(
            f"--remat must be policies from {', '.join(POLICIES)}; got "
            f"{', '.join(sorted(unknown))}."
        )
    batch = max(1, spec.batch_size // num_chips)
    batches_per_chip = batches_per_chip or sorted(
        {max(1, batch // 2), batch, 2 * batch}
    )
    return [
        spec.with_mesh(*axes, num_chips)
        .with_remat(policy)
        .with_batch_size(batch * num_chips)
        for axes, policy, batch in itertools.product(
            meshes, policies, sorted(batches_per_chip)
        )
    ]


def run_search(
    spec: TrainSpec,
    topology: Topology,
    meshes: Iterable[Axes],
    policies: Iterable[str],
    batches_per_chip: Sequence[int],
) -> str:
    """Compile every candidate; return their table and the overrides of the fastest.

    A line on stderr reports each candidate as soon as it is compiled.

    Raises:
      ConfigError: a remat policy does not exist, or a mesh or a batch does not divide.
    """
    specs = candidate_specs(
        spec, len(topology.devices), meshes, policies, batches_per_chip
    )
    plans: list[PodPlan] = []
    for i, candidate in enumerate(specs, 1):
        plans.append(make_plan(candidate, topology))
        cells = ", ".join(filter(None, report.search_row(plans[-1])))
        print(f"{i} of {len(specs)}: {cells}", file=sys.stderr)
    rows = [report.SEARCH_HEADER, *map(report.search_row, plans)]
    lines = [markdown.table(rows), ""]
    fitting = [p for p in plans if p.images_per_second]
    if fitting:
        fastest = max(fitting, key=lambda p: p.images_per_second)
        lines += ["Fastest that fits, at best:", *override_flags(fastest.spec)]
    elif topology.chip is None:
        lines.append(
            "The speed of this device is unknown, so none is called the fastest."
        )
    else:
        lines.append(
            "None fits. Use fewer examples per chip, more remat or a larger fsdp axis."
        )
    return "\n".join(lines)


def override_flags(spec: TrainSpec) -> list[str]:
    """Return the flags that give `ul train` this batch, mesh and remat policy."""
    data, fsdp = spec.mesh_axes
    remat = (f"--config.{name}.remat={policy}" for name, policy in spec.remat.items())
    return [
        f"  --config.batch_size={spec.batch_size}",
        f"  --config.mesh.data={data} --config.mesh.fsdp={fsdp}",
        f"  {' '.join(remat)}",
    ]
