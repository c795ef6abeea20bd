"""The builder of every stage 1 that is trained: a stage's file says how it differs."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ul.config import Stage1Config
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import weightings
from ul.objectives import joint
from ul.stages import codec as codecs
from ul.stages import kinds
from ul.stages.conditions import Conditions
from ul.stages.networks import NetworkFunctions, Stage1Modules, stage1_modules
from ul.stages.stage import JointDiffusion, LatentPrior, NetworkUse, Stage, StageKind


@dataclasses.dataclass(frozen=True)
class Stage1Kind:
    """A kind of stage 1, described by its differences from the others.

    objective: `(params, batch, key, step, *, ...) -> Terms`. Its keyword arguments are
    supplied by name, from `objective_arguments`. Keys of config.loss must be named as the
    keyword arguments of the objective.
    has_variance: the encoder returns a mean and a log variance.
    is_diffusion: the decoder samples by diffusion; otherwise it is one network call.
    prior_reaches_encoder: the prior's loss is differentiated with respect to the latents.
    is_single_stage: the prior sees labels and is sampled from; the decoder sees the
    latents' noise level.
    more_arguments(config, functions, training): arguments that only this objective takes,
    or takes in another form.
    """

    name: str
    config: type[Stage1Config]
    objective: Callable
    has_variance: bool = False
    is_diffusion: bool = True
    prior_reaches_encoder: bool = True
    is_single_stage: bool = False
    more_arguments: Callable[..., dict[str, Any]] = lambda *_: {}

    def row(self) -> StageKind:
        """Return the row of the registry."""
        return StageKind(self.name, self.config, functools.partial(build, self))


def _weighting(config: Any) -> Callable | None:
    """Return the decoder's weighting; None for an objective without one."""
    if not hasattr(config.loss, "weighting"):
        return None
    weighting = kinds.weighting(config.loss.weighting)
    if isinstance(weighting, weightings.Sigmoid) and weighting.factor <= 1:
        raise ConfigError(
            "loss.weighting.factor must be above 1, because at 1 or below the optimal latent "
            f"carries no bits; got {weighting.factor}."
        )
    return weighting


def objective_arguments(
    kind: Stage1Kind, config: Any, modules: Stage1Modules, *, training: bool
) -> dict[str, Any]:
    """Return everything that objectives of a stage 1 take as keyword arguments.

    The keys of config.loss are among them; `_objective` selects those that the
    objective's signature names.
    """
    functions = NetworkFunctions(modules, training)
    arguments: dict[str, Any] = {
        "networks": joint.JointNetworks(
            functions.encode, functions.denoise_latent, functions.denoise_image
        ),
        "encode": functions.encode_normal if kind.has_variance else functions.encode,
        "denoise_latent": functions.denoise_latent,
        "denoise_image": functions.denoise_image,
        "decode": functools.partial(
            functions.decode, image_shape=config.data.image_shape
        ),
        "decoder_weight": _weighting(config),
    }
    for name in ("prior_schedule", "decoder_schedule"):
        if hasattr(config, name):
            arguments[name] = kinds.schedule(name, getattr(config, name))
    if hasattr(config, "latent_logsnr"):
        arguments["latent_logsnr"] = config.latent_logsnr
    arguments |= vars(config.loss)
    return arguments | kind.more_arguments(config, functions, training)


def _objective(kind: Stage1Kind, arguments: Mapping[str, Any]) -> Callable:
    """Bind the keyword arguments that the objective's signature names."""
    names = [
        name
        for name, parameter in inspect.signature(kind.objective).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return functools.partial(kind.objective, **{n: arguments[n] for n in names})


def _codec(
    kind: Stage1Kind, config: Any, modules: Stage1Modules, arguments: Mapping[str, Any]
) -> codecs.Codec:
    """Return encoder, fixed noise and decoder, without dropout."""
    functions = NetworkFunctions(modules, training=False)
    if "prior_schedule" in arguments:
        latent_logsnr = arguments["prior_schedule"].logsnr_max
    else:
        latent_logsnr = arguments["latent_logsnr"]
    if kind.has_variance:

        def encode(params, x):
            return functions.encode_normal(params, x)[0]

        latent = codecs.normal_latent(functions.encode_normal)
    else:
        encode = functions.encode

        def latent(params, x, row, key):
            return encode(params, x)

    decoder: Callable
    if kind.is_diffusion:
        denoise_image = functions.denoise_image
        if kind.is_single_stage:
            denoise_image = _at_logsnr_max(functions, latent_logsnr)
        decoder = codecs.DiffusionDecoder(
            denoise_image,
            kinds.sampler(config.sampling, arguments["decoder_schedule"]),
            config.data.image_shape,
        )
    else:

        def decode_once(params, z_0, row, key):
            return arguments["decode"](params, z_0, None)

        decoder = decode_once

    return codecs.Codec(
        encoder=encode,
        latent=latent,
        decoder=decoder,
        latent_logsnr=latent_logsnr,
        image_shape=config.data.image_shape,
        latent_shape=modules.latent_shape,
        is_diffusion=kind.is_diffusion,
        is_deterministic=not kind.has_variance,
    )


def _at_logsnr_max(functions: NetworkFunctions, logsnr_max: float) -> Callable:
    """Return the decoder of a single stage for latents at the maximum log-SNR."""

    def denoise_image(params, x_t, logsnr, z_0, key):
        logsnr_0 = jnp.full((len(z_0),), logsnr_max, jnp.float32)
        return functions.denoise_with_latent_noise_level(
            params, x_t, logsnr, z_0, logsnr_0, key
        )

    return denoise_image


def _network_uses(kind: Stage1Kind, config, modules: Stage1Modules) -> dict:
    image_shape, latent_shape = config.data.image_shape, modules.latent_shape
    uses = {
        "encoder": NetworkUse(modules.encoder, image_shape, needs_input_gradient=False)
    }
    if modules.prior is not None:
        uses["prior"] = NetworkUse(
            modules.prior,
            latent_shape,
            needs_input_gradient=kind.prior_reaches_encoder,
        )
    uses["decoder"] = NetworkUse(modules.decoder, image_shape, modules.z_0_channels)
    return uses


def build(kind: Stage1Kind, config: Stage1Config) -> Stage:
    """Build a stage 1.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    modules = stage1_modules(
        config,
        has_variance=kind.has_variance,
        is_single_stage=kind.is_single_stage,
    )
    training = objective_arguments(kind, config, modules, training=True)
    held_out = objective_arguments(kind, config, modules, training=False)
    image_shape = config.data.image_shape
    joint_diffusion, latent_prior = None, None
    if modules.prior and not (kind.has_variance or kind.is_single_stage):
        schedule = held_out["prior_schedule"]
        latent_prior = LatentPrior(held_out["networks"].denoise_latent, schedule)
        if kind.is_diffusion:
            joint_diffusion = JointDiffusion(
                held_out["networks"], schedule, held_out["decoder_schedule"]
            )

    def init(root: jax.Array):
        return modules.init(rng.stream(root, "init"), image_shape)

    return Stage(
        name=kind.name,
        image_shape=image_shape,
        latent_shape=modules.latent_shape,
        num_classes=config.data.num_classes,
        evaluation=config.eval,
        init=init,
        objective=_objective(kind, training),
        held_out_objective=_objective(kind, held_out),
        batch={"image": (image_shape, jnp.uint8), "label": ((), jnp.int32)},
        networks=_network_uses(kind, config, modules),
        conditions=Conditions(),
        sampling=config.sampling,
        weighting=held_out["decoder_weight"],
        codec=_codec(kind, config, modules, held_out),
        joint_diffusion=joint_diffusion,
        latent_prior=latent_prior,
    )
