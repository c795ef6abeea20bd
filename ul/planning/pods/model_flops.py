"""FLOPs of a train step: counted in its jaxpr, and in closed form."""

import jax

from ul.core import mesh as meshes
from ul.core import trees
from ul.planning.pods import closed_form, jaxpr_flops
from ul.planning.pods.closed_form import FlopCount
from ul.runs.train_spec import TrainSpec
from ul.stages.stage import Stage
from ul.train import step


def _single_device_mesh() -> jax.sharding.Mesh:
    """Return a mesh to trace on; counts do not depend on its size."""
    return meshes.make(1, 1, jax.devices()[:1])


def computed_flops(spec: TrainSpec) -> int:
    """Count the FLOPs of the gradient over one global batch in its jaxpr.

    What remat computes again counts again. Attention counts as plain products.
    """
    spec, mesh = spec.with_attention("xla"), _single_device_mesh()
    update, batch = spec.make_update(mesh), spec.abstract_batch(mesh)

    def gradients(params, batch):
        return step.gradients(
            update.objective, params, batch, update.root, 0, spec.accumulate
        )

    return jaxpr_flops.count_flops(gradients, jax.eval_shape(update.init), batch)


def model_flops(spec: TrainSpec) -> int:
    """Count the FLOPs of the gradient over one global batch without remat."""
    return computed_flops(spec.with_remat("none"))


def flops_by_network(stage: Stage) -> dict[str, FlopCount]:
    """Return the FLOPs of each network on one example, in closed form.

    Raises:
      ConfigError: a network has no closed form.
    """
    return {
        name: closed_form.network_flops(use) for name, use in stage.networks.items()
    }


def closed_form_flops(stage: Stage) -> FlopCount:
    """Return the FLOPs of all networks on one example, in closed form.

    Raises:
      ConfigError: a network has no closed form.
    """
    return sum(flops_by_network(stage).values(), FlopCount(0))


def target_flops(student: Stage) -> int:
    """Return the FLOPs of the targets of one example of a student.

    Frozen networks compute them before the step.
    """
    assert student.distillation is not None
    decoder = closed_form.network_flops(student.networks["decoder"])
    return student.distillation.settings.TARGET_PASSES * decoder.forward


def parameters_by_network(stage: Stage) -> dict[str, int]:
    """Return the number of parameters of each network."""
    params = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    if len(stage.networks) == 1:  # the parameters of a stage 2 are those of its network
        params = {next(iter(stage.networks)): params}
    return {name: trees.num_elements(tree) for name, tree in params.items()}
