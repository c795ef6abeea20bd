"""Batch a chip x remat policy x mesh: each compiled, the fastest that fits."""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Sequence

from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.models.remat import POLICIES
from ul.planning.pods import model_flops, report
from ul.planning.pods.compile import Plan, on_axes, plan
from ul.planning.pods.topology import Topology

Axes = tuple[int, int]


def single(config: TrainConfig, topology: Topology, axes: Axes) -> Plan:
    return plan(on_axes(config, *axes, len(topology.devices)), topology)


def candidates(
    config: TrainConfig,
    chips: int,
    meshes: Iterable[Axes],
    remats: Iterable[str],
    batches: Sequence[int],
) -> list[TrainConfig]:
    """Configs to try; without `batches` half, once and twice the config's own.

    Raises:
      ConfigError: a policy that does not exist.
    """
    remats = list(remats)
    if wrong := set(remats) - set(POLICIES):
        raise ConfigError(f"--remat has {sorted(wrong)}; known are {list(POLICIES)}")
    own = max(1, config.batch_size // chips)
    batches = batches or sorted({max(1, own // 2), own, 2 * own})
    return [
        dataclasses.replace(
            model_flops.with_remat(on_axes(config, *axes, chips), remat),
            batch_size=batch * chips,
        )
        for axes, remat, batch in itertools.product(meshes, remats, sorted(batches))
    ]


def best(
    config: TrainConfig,
    topology: Topology,
    meshes: Iterable[Axes],
    remats: Iterable[str],
    batches: Sequence[int],
) -> str:
    """The table of all of them, and the overrides of the fastest; stderr says each."""
    tried = candidates(config, len(topology.devices), meshes, remats, batches)
    plans: list[Plan] = []
    for i, one in enumerate(tried, 1):
        plans.append(plan(one, topology))
        shown = ", ".join(filter(None, report.row(plans[-1])))
        print(f"{i} of {len(tried)}: {shown}", file=sys.stderr)
    lines = [report.table([report.HEAD, *map(report.row, plans)]), ""]
    fitting = [p for p in plans if p.images_per_second]
    if fitting:
        fastest = max(fitting, key=lambda p: p.images_per_second)
        lines += ["Fastest that fits, at best:", *overrides(fastest.config)]
    elif topology.chip is None:
        lines.append("No speed of this device is known, so none is called the fastest.")
    else:
        lines.append("None fits: fewer examples a chip, more remat, or more fsdp.")
    return "\n".join(lines)


def overrides(config: TrainConfig) -> list[str]:
    """What to paste behind a train command, a line each."""
    return [
        f"  --config.batch_size={config.batch_size}",
        f"  --config.mesh.data={config.mesh.data} --config.mesh.fsdp={config.mesh.fsdp}",
        "  "
        + " ".join(
            f"--config.{n}.remat={getattr(config, n)['remat']}"
            for n in model_flops.NETWORKS
            if hasattr(config, n)
        ),
    ]
