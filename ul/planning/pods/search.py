"""Search over batch per chip, remat policy and mesh for the fastest plan that fits."""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Sequence

from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.models.remat import POLICIES
from ul.planning import markdown
from ul.planning.pods import model_flops, report
from ul.planning.pods.compile import PodPlan, make_plan, with_mesh
from ul.planning.pods.topology import Topology

Axes = tuple[int, int]  # (data, fsdp)


def plan_on_axes(config: TrainConfig, topology: Topology, axes: Axes) -> PodPlan:
    """Compile the config's step for a topology with these mesh axes."""
    return make_plan(with_mesh(config, *axes, len(topology.devices)), topology)


def candidate_configs(
    config: TrainConfig,
    num_chips: int,
    meshes: Iterable[Axes],
    policies: Iterable[str],
    batches_per_chip: Sequence[int],
) -> list[TrainConfig]:
    """Return a config for each combination of mesh, remat policy and batch per chip.

    If `batches_per_chip` is empty, half, once and twice the config's own are tried.

    Raises:
      ConfigError: a remat policy does not exist.
    """
    policies = list(policies)
    if unknown := set(policies) - set(POLICIES):
        raise ConfigError(
            f"--remat must be policies from {', '.join(POLICIES)}; got "
            f"{', '.join(sorted(unknown))}."
        )
    batch = max(1, config.batch_size // num_chips)
    batches_per_chip = batches_per_chip or sorted(
        {max(1, batch // 2), batch, 2 * batch}
    )
    return [
        dataclasses.replace(
            model_flops.with_remat(with_mesh(config, *axes, num_chips), policy),
            batch_size=batch * num_chips,
        )
        for axes, policy, batch in itertools.product(
            meshes, policies, sorted(batches_per_chip)
        )
    ]


def run_search(
    config: TrainConfig,
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
    configs = candidate_configs(
        config, len(topology.devices), meshes, policies, batches_per_chip
    )
    plans: list[PodPlan] = []
    for i, candidate in enumerate(configs, 1):
        plans.append(make_plan(candidate, topology))
        cells = ", ".join(filter(None, report.search_row(plans[-1])))
        print(f"{i} of {len(configs)}: {cells}", file=sys.stderr)
    rows = [report.SEARCH_HEADER, *map(report.search_row, plans)]
    lines = [markdown.table(rows), ""]
    fitting = [p for p in plans if p.images_per_second]
    if fitting:
        fastest = max(fitting, key=lambda p: p.images_per_second)
        lines += ["Fastest that fits, at best:", *override_flags(fastest.config)]
    elif topology.chip is None:
        lines.append(
            "The speed of this device is unknown, so none is called the fastest."
        )
    else:
        lines.append(
            "None fits. Use fewer examples per chip, more remat or a larger fsdp axis."
        )
    return "\n".join(lines)


def override_flags(config: TrainConfig) -> list[str]:
    """Return the flags that give launch.train this batch, mesh and remat policy."""
    return [
        f"  --config.batch_size={config.batch_size}",
        f"  --config.mesh.data={config.mesh.data} --config.mesh.fsdp={config.mesh.fsdp}",
        "  "
        + " ".join(
            f"--config.{name}.remat={getattr(config, name)['remat']}"
            for name in model_flops.NETWORK_NAMES
            if hasattr(config, name)
        ),
    ]
