"""Model FLOPs of a config's training step: counted, and in closed form."""

import dataclasses

import jax

from ul.config import DetachedPriorConfig, Stage1Config, TrainConfig
from ul.core import mesh as meshes
from ul.models.vit import ViT
from ul.planning.pods import closed_form, jaxpr_flops
from ul.planning.pods.closed_form import Count
from ul.runs import assemble
from ul.stages import registry
from ul.stages.stage2 import base_module
from ul.train import step

NETWORKS = ("encoder", "prior", "decoder", "base")


def with_remat(config: TrainConfig, policy: str) -> TrainConfig:
    """Every network of the config under one remat policy."""
    return dataclasses.replace(
        config,
        **{
            n: getattr(config, n) | {"remat": policy}
            for n in NETWORKS
            if hasattr(config, n)
        },
    )


def traced(config: TrainConfig) -> int:
    """FLOPs of the gradient over one global batch, by its jaxpr, as the config says.

    With what remat computes again; attention as plain products on any device.
    """
    config = registry.portable(config)
    nowhere = meshes.make(1, 1, jax.devices()[:1])
    update, batch = (
        assemble.update(config, nowhere),
        assemble.abstract_batch(config, nowhere),
    )

    def gradients(params, batch):
        return step.gradients(
            update.objective, params, batch, update.root, 0, config.accumulate
        )

    return jaxpr_flops.of(gradients, jax.eval_shape(update.init), batch)


def model(config: TrainConfig) -> int:
    """FLOPs of the gradient over one global batch, nothing computed twice."""
    return traced(with_remat(config, "none"))


def networks(config: TrainConfig) -> dict[str, Count]:
    """One image's FLOPs in each network, from the settings alone."""
    if isinstance(config, Stage1Config):
        made, shape = registry.modules(config), config.data.image_shape
        found = {"encoder": closed_form.encoder(made.encoder, shape)}
        if made.prior is not None:
            detached = isinstance(config, DetachedPriorConfig)
            found["prior"] = closed_form.vit(
                made.prior, made.latent_shape, on_data=detached
            )
        sees = made.decoder_sees
        found["decoder"] = closed_form.uvit(made.decoder, shape, sees, on_data=False)
        return found
    module, shape = base_module(config), registry.latent_shape(config)  # type: ignore[arg-type]
    if isinstance(module, ViT):
        sees = shape[-1] if "context" in registry.conditions(config) else 0  # type: ignore[arg-type]
        text = config.data.text
        return {"base": closed_form.vit(module, shape, True, text, sees)}
    sees = config.data.num_classes + 1
    return {"decoder": closed_form.uvit(module, shape, sees, on_data=True)}


def closed(config: TrainConfig) -> Count:
    """One image's FLOPs in all of them."""
    return sum(networks(config).values(), Count(0))


def parameters(config: TrainConfig) -> dict[str, int]:
    """Of each network."""
    nowhere = meshes.make(1, 1, jax.devices()[:1])
    made = jax.eval_shape(assemble.update(registry.portable(config), nowhere).init)
    parts = (
        made
        if isinstance(config, Stage1Config)
        else {next(iter(networks(config))): made}
    )
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in parts.items()
    }
