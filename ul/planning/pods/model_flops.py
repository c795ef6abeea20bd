"""FLOPs of a config's training step: counted in its jaxpr, and in closed form."""

import dataclasses

import jax

from ul.config import DetachedPriorConfig, Stage1Config, TrainConfig
from ul.core import mesh as meshes
from ul.core import trees
from ul.models.vit import ViT
from ul.planning.pods import closed_form, jaxpr_flops
from ul.planning.pods.closed_form import FlopCount
from ul.runs import assemble
from ul.stages import registry
from ul.stages.stage2 import base_module
from ul.train import step

NETWORK_NAMES = ("encoder", "prior", "decoder", "base")


def with_remat(config: TrainConfig, policy: str) -> TrainConfig:
    """Return the config with one remat policy for all of its networks."""
    return dataclasses.replace(
        config,
        **{
            name: getattr(config, name) | {"remat": policy}
            for name in NETWORK_NAMES
            if hasattr(config, name)
        },
    )


def _single_device_mesh() -> jax.sharding.Mesh:
    """Return a mesh to trace on; counts do not depend on its size."""
    return meshes.make(1, 1, jax.devices()[:1])


def computed_flops(config: TrainConfig) -> int:
    """Count the FLOPs of the gradient over one global batch in its jaxpr.

    What remat computes again counts again. Attention counts as plain products.
    """
    config = registry.portable(config)
    mesh = _single_device_mesh()
    update = assemble.update(config, mesh)
    batch = assemble.abstract_batch(config, mesh)

    def gradients(params, batch):
        return step.gradients(
            update.objective, params, batch, update.root, 0, config.accumulate
        )

    return jaxpr_flops.count_flops(gradients, jax.eval_shape(update.init), batch)


def model_flops(config: TrainConfig) -> int:
    """Count the FLOPs of the gradient over one global batch without remat."""
    return computed_flops(with_remat(config, "none"))


def flops_by_network(config: TrainConfig) -> dict[str, FlopCount]:
    """Return the FLOPs of each network on one example, in closed form."""
    if isinstance(config, Stage1Config):
        modules, shape = registry.modules(config), config.data.image_shape
        counts = {"encoder": closed_form.encoder_flops(modules.encoder, shape)}
        if modules.prior is not None:
            counts["prior"] = closed_form.vit_flops(
                modules.prior,
                modules.latent_shape,
                input_is_data=isinstance(config, DetachedPriorConfig),
            )
        counts["decoder"] = closed_form.uvit_flops(
            modules.decoder, shape, modules.decoder_sees, latent_is_data=False
        )
        return counts
    module, shape = base_module(config), registry.latent_shape(config)  # type: ignore[arg-type]
    if isinstance(module, ViT):
        has_context = "context" in registry.conditions(config)  # type: ignore[arg-type]
        count = closed_form.vit_flops(
            module,
            shape,
            input_is_data=True,
            text=config.data.text,
            context_channels=shape[-1] if has_context else 0,
        )
        return {"base": count}
    # Pixel diffusion sees the one-hot label, or the missing one, in the place of z_0.
    count = closed_form.uvit_flops(
        module, shape, config.data.num_classes + 1, latent_is_data=True
    )
    return {"decoder": count}


def closed_form_flops(config: TrainConfig) -> FlopCount:
    """Return the FLOPs of all networks on one example, in closed form."""
    return sum(flops_by_network(config).values(), FlopCount(0))


def parameters_by_network(config: TrainConfig) -> dict[str, int]:
    """Return the number of parameters of each network."""
    update = assemble.update(registry.portable(config), _single_device_mesh())
    params = jax.eval_shape(update.init)
    if not isinstance(config, Stage1Config):
        (name,) = flops_by_network(config)
        params = {name: params}
    return {name: trees.num_elements(tree) for name, tree in params.items()}
