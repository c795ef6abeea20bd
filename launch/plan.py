"""Predict a run's bitrate, FLOPs, cost, or memory and speed on a pod; fit a sweep.

    python -m ul plan bitrate --config photos:stage1
    python -m ul plan bitrate --config photos:stage1 --target-bpp 0.06
    python -m ul plan flops --config imagenet512:stage1
    python -m ul plan cost --config imagenet512:stage2_medium \\
        --stage1_config imagenet512:stage1
    python -m ul plan pod --config imagenet512:stage1 \\
        --topology v5p:4x4x4 --mesh data=4,fsdp=16
    python -m ul plan pod --config imagenet512:stage2 \\
        --topology v6e:16x16 --mesh data=16,fsdp=16 --mesh data=32,fsdp=8 --search
    python -m ul plan scaling --config imagenet512:stage1 \\
        --topology v5p:4x4x4 --mesh data=4,fsdp=16
    python -m ul plan budget --runs runs/budget --flops 1e15

`pod` compiles without the pod: TPU topologies need the `tpu` extra, cpu:8 nothing. If the
step does not fit, `pod` exits with 64 after its table; with --search such a plan is one row
of the table, and the exit code is 0.
"""

import functools
from collections.abc import Callable
from types import ModuleType

from launch.lib import (
    cli,
    plan_bitrate,
    plan_budget,
    plan_cost,
    plan_evaluation,
    plan_flops,
    plan_pod,
    plan_recipe,
    plan_scaling,
    plan_topology,
)
from launch.lib.flag_groups import module_group

_CONFIG = cli.define_config()
_MODULES: dict[str, ModuleType] = {
    "bitrate": plan_bitrate,
    "flops": plan_flops,
    "evaluation": plan_evaluation,
    "cost": plan_cost,
    "pod": plan_pod,
    "scaling": plan_scaling,
}

# The modules whose flags a command takes besides its own.
_SHARED = {
    plan_evaluation: (plan_recipe,),
    plan_cost: (plan_evaluation, plan_recipe),
    plan_pod: (plan_topology, plan_recipe),
    plan_scaling: (plan_topology,),
}


def _plan(module: ModuleType) -> None:
    module.main(_CONFIG())


COMMANDS: dict[str, Callable] = {
    **{name: functools.partial(_plan, module) for name, module in _MODULES.items()},
    "budget": plan_budget.main,
}


if __name__ == "__main__":
    groups = {
        name: module_group(
            [m.__name__ for m in (module, *_SHARED.get(module, ()))],
            f"Flags of {name}",
            module.__doc__ or "",
        )
        for name, module in (_MODULES | {"budget": plan_budget}).items()
    }
    cli.run(COMMANDS, groups=groups)
