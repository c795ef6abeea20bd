"""Stage 1 and what it is compared with: from settings to networks and an objective."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp

from ul import config as configs
from ul.builders import external, parts
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import predictions, schedules, weightings
from ul.evals import codec
from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.objectives import ablations, joint
from ul.objectives import single as single_stage

# A learned encoder variance starts at the fixed noise's, log sigma_0^2 = -5.
INITIAL_LOG_VARIANCE = -5.0


@dataclasses.dataclass(frozen=True)
class Modules:
    """The Linen modules of a stage 1, and the shape of its latents.

    decoder_sees: channels the decoder gets, the latent's and what it is told besides.
    """

    encoder: Encoder
    decoder: UViT
    prior: ViT | None
    latent_shape: tuple[int, int, int]
    decoder_sees: int

    def init(self, key, image_shape: tuple[int, int, int]) -> dict:
        """Parameters of the networks there are."""
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *self.latent_shape), jnp.float32)
        z_0 = jnp.zeros((1, *self.latent_shape[:2], self.decoder_sees), jnp.float32)
        logsnr, label = jnp.zeros((1,), jnp.float32), jnp.zeros((1,), jnp.int32)

        def init(name, module, *args):
            keys = {
                "params": rng.stream(key, name),
                "dropout": rng.stream(key, "dropout"),
            }
            return module.init(keys, *args)["params"]

        params = {
            "encoder": init("encoder", self.encoder, x),
            "decoder": init("decoder", self.decoder, x, logsnr, z_0),
        }
        if self.prior is not None:
            params["prior"] = init("prior", self.prior, z, logsnr, label)
        return params


@dataclasses.dataclass(frozen=True)
class Diffusions:
    """A prior and a decoder that both are UL's: what a likelihood bound needs."""

    networks: joint.Networks
    prior_schedule: schedules.Schedule
    decoder_schedule: schedules.Schedule


@dataclasses.dataclass(frozen=True)
class Stage1:
    """A stage 1, ready to train and to evaluate.

    objective(params, batch, key, step) -> Terms; None of what is not trained here.
    """

    modules: Modules | external.Modules
    codec: codec.Codec
    objective: Callable | None
    diffusions: Diffusions | None = None


def modules(config: configs.Trained) -> Modules:
    """The networks of stage 1.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    encoder = parts.network("encoder", Encoder, config.encoder, config.dtype)
    decoder = parts.network("decoder", UViT, config.decoder, config.dtype)
    height, width, _ = config.data.image_shape
    if len(encoder.channels) != len(encoder.blocks):
        raise ConfigError(
            f"encoder.channels {encoder.channels} and encoder.blocks {encoder.blocks} "
            "must have the same length"
        )
    down = encoder.patch * 2 ** (len(encoder.channels) - 1)
    grid_of_decoder = parts.grid_of(decoder)
    for name, factor in (("encoder", down), ("decoder", grid_of_decoder)):
        if height % factor or width % factor:
            raise ConfigError(
                f"data.image_shape {height}x{width} is not divisible by the {name}'s "
                f"downsampling {factor}"
            )
    if down != grid_of_decoder:
        raise ConfigError(
            f"the encoder downsamples {down}x but the decoder's transformer is at "
            f"{grid_of_decoder}x; change decoder.patch or decoder.channels"
        )
    channels = encoder.latent_channels
    shape = (height // down, width // down, channels)
    single = isinstance(config, configs.Single)
    prior = None
    if hasattr(config, "prior"):
        classes = config.data.num_classes if single else 0
        prior = parts.network(
            "prior", ViT, config.prior, config.dtype, num_classes=classes
        )
        parts.check_levels("prior", prior, shape)
    if isinstance(config, configs.LearnedVariance | configs.KlAutoencoder):
        encoder = encoder.clone(latent_channels=2 * channels)  # mean and log variance
    # A single stage's decoder is told the noise of its latents.
    return Modules(encoder, decoder, prior, shape, channels + single)


class Networks:
    """The modules as functions of the parameters, as the objectives call them.

    v outputs become x; without `training` there is no dropout, and keys are ignored.
    """

    def __init__(self, made: Modules, training: bool):
        self._made, self.training = made, training

    def _key(self, key):
        return key if self.training else None

    def encode(self, params, x):
        return self._made.encoder.apply({"params": params["encoder"]}, x)

    def encode_normal(self, params, x):
        """Mean and log variance."""
        out = self.encode(params, x).astype(jnp.float32)
        mean, log_variance = jnp.split(out, 2, axis=-1)
        return mean, log_variance + INITIAL_LOG_VARIANCE

    def denoise_latent(self, params, z_t, logsnr, key):
        v = parts.apply(
            self._made.prior, params["prior"], z_t, logsnr, key=self._key(key)
        )
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_labelled(self, params, z_t, logsnr, label, key):
        """As `denoise_latent`, by a prior that sees labels."""
        module, key = self._made.prior, self._key(key)
        v = parts.apply(module, params["prior"], z_t, logsnr, label, key=key)
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_image(self, params, x_t, logsnr, z_0, key):
        module, key = self._made.decoder, self._key(key)
        v = parts.apply(module, params["decoder"], x_t, logsnr, z_0, key=key)
        return predictions.x_from_v(v, x_t, logsnr)

    def denoise_told(self, params, x_t, logsnr, z_0, logsnr_0, key):
        """As `denoise_image`, told the latent's noise by one channel more."""
        plane = jnp.broadcast_to(
            logsnr_0[:, None, None, None] / 5.0, z_0[..., :1].shape
        )
        told = jnp.concatenate([z_0, plane], axis=-1)
        return self.denoise_image(params, x_t, logsnr, told, key)

    def decode(self, params, z_0, key, *, image_shape):
        """The decoder's UViT in one call, from nothing but z_0: its output is x_hat."""
        x_t = jnp.zeros((len(z_0), *image_shape), jnp.float32)
        logsnr = jnp.zeros((len(z_0),), jnp.float32)
        module, key = self._made.decoder, self._key(key)
        return parts.apply(module, params["decoder"], x_t, logsnr, z_0, key=key)


def _sampled(config, denoise_image: Callable) -> Callable:
    """`decode(params, z_0, row, key) -> x` by the whole sampler."""
    return functools.partial(
        codec.sample_image,
        denoise_image,
        schedule=parts.schedule("decoder_schedule", config.decoder_schedule),
        sampling=parts.sampling("sampling", config.sampling),
        image_shape=config.data.image_shape,
    )


def _weighted(config) -> dict:
    """The decoder's loss of UL, and the ramp of the prior's gradient."""
    return dict(
        decoder_schedule=parts.schedule("decoder_schedule", config.decoder_schedule),
        decoder_weight=weightings.Sigmoid(config.loss.bias, config.loss.factor),
    )


def _codec(config, made: Modules, logsnr: float, encode, decoder) -> codec.Codec:
    """A deterministic encoder, and the fixed noise."""
    return codec.Codec(
        encoder=encode,
        latent=lambda params, x, row, key: encode(params, x),
        decoder=decoder,
        latent_logsnr=logsnr,
        image_shape=config.data.image_shape,
        latent_shape=made.latent_shape,
        # A decoder in one call has no schedule.
        sampled=hasattr(config, "decoder_schedule"),
        exact=True,
    )


def _normal_codec(config, made: Modules, logsnr: float, nets, decoder) -> codec.Codec:
    """An encoder with a variance of its own, below the fixed noise."""
    exact = _codec(
        config,
        made,
        logsnr,
        lambda params, x: nets.encode_normal(params, x)[0],
        decoder,
    )
    return dataclasses.replace(
        exact, latent=codec.normal(nets.encode_normal), exact=False
    )


def _diffusions(config, nets: Networks) -> Diffusions:
    return Diffusions(
        joint.Networks(nets.encode, nets.denoise_latent, nets.denoise_image),
        parts.schedule("prior_schedule", config.prior_schedule),
        parts.schedule("decoder_schedule", config.decoder_schedule),
    )


def _joint(config: configs.Joint, made: Modules, nets: Networks) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        joint.joint,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    logsnr = both.prior_schedule.logsnr_max
    decoder = _sampled(config, nets.denoise_image)
    autoencoder = _codec(config, made, logsnr, nets.encode, decoder)
    return Stage1(made, autoencoder, objective, both)


def _detached_prior(config: configs.DetachedPrior, made, nets) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        ablations.detached_prior,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        kl_weight=config.loss.kl_weight,
        **_weighted(config),
    )
    logsnr = both.prior_schedule.logsnr_max
    decoder = _sampled(config, nets.denoise_image)
    autoencoder = _codec(config, made, logsnr, nets.encode, decoder)
    return Stage1(made, autoencoder, objective, both)


def _learned_variance(config: configs.LearnedVariance, made, nets) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        ablations.learned_variance,
        encode=nets.encode_normal,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _normal_codec(
        config,
        made,
        both.prior_schedule.logsnr_max,
        nets,
        _sampled(config, nets.denoise_image),
    )
    return Stage1(made, autoencoder, objective)


def _normal_prior(config: configs.NormalPrior, made, nets) -> Stage1:
    objective = functools.partial(
        ablations.normal_prior,
        encode=nets.encode,
        denoise_image=nets.denoise_image,
        latent_logsnr=config.latent_logsnr,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _codec(
        config,
        made,
        config.latent_logsnr,
        nets.encode,
        _sampled(config, nets.denoise_image),
    )
    return Stage1(made, autoencoder, objective)


def _mse_decoder(config: configs.MseDecoder, made, nets) -> Stage1:
    schedule = parts.schedule("prior_schedule", config.prior_schedule)
    decode = functools.partial(nets.decode, image_shape=config.data.image_shape)
    objective = functools.partial(
        ablations.mse_decoder,
        encode=nets.encode,
        denoise_latent=nets.denoise_latent,
        decode=decode,
        prior_schedule=schedule,
        precision=config.loss.precision,
        ramp_steps=config.loss.ramp_steps,
    )
    autoencoder = _codec(
        config,
        made,
        schedule.logsnr_max,
        nets.encode,
        lambda params, z_0, row, key: decode(params, z_0, None),
    )
    return Stage1(made, autoencoder, objective)


def _kl_autoencoder(config: configs.KlAutoencoder, made, nets) -> Stage1:
    decode = functools.partial(nets.decode, image_shape=config.data.image_shape)
    objective = functools.partial(
        ablations.kl_autoencoder,
        encode=nets.encode_normal,
        decode=decode,
        precision=config.loss.precision,
        kl_weight=config.loss.kl_weight,
    )
    autoencoder = _normal_codec(
        config,
        made,
        config.latent_logsnr,
        nets,
        lambda params, z_0, row, key: decode(params, z_0, None),
    )
    return Stage1(made, autoencoder, objective)


def _single(config: configs.Single, made, nets) -> Stage1:
    schedule = parts.schedule("prior_schedule", config.prior_schedule)
    if not isinstance(schedule, schedules.Linear):
        raise ConfigError(
            "prior_schedule.kind must be linear in a single stage: each example's ends "
            "at its own noise"
        )

    def denoise_image(params, x_t, logsnr, z_0, key):
        least = jnp.full((len(z_0),), schedule.logsnr_max, jnp.float32)
        return nets.denoise_told(params, x_t, logsnr, z_0, least, key)

    least = parts.of_kind("least_noise", single_stage.LEAST_NOISE, config.least_noise)
    # Bits are those of the z_0 that is decoded, so an evaluation has its noise.
    objective = functools.partial(
        single_stage.single,
        encode=nets.encode,
        denoise_latent=nets.denoise_labelled,
        denoise_image=nets.denoise_told,
        least=least if nets.training else single_stage.Fixed(),
        prior_schedule=schedule,
        label_dropout=config.loss.label_dropout if nets.training else 0.0,
        null_label=config.data.num_classes,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _codec(
        config, made, schedule.logsnr_max, nets.encode, _sampled(config, denoise_image)
    )
    return Stage1(made, autoencoder, objective)


BUILDERS: dict[type, Callable[..., Stage1]] = {
    configs.Joint: _joint,
    configs.NormalPrior: _normal_prior,
    configs.MseDecoder: _mse_decoder,
    configs.LearnedVariance: _learned_variance,
    configs.DetachedPrior: _detached_prior,
    configs.KlAutoencoder: _kl_autoencoder,
    configs.Single: _single,
}


def stage1(config: configs.Autoencoder, *, training: bool = False) -> Stage1:
    """A stage 1 from its settings, for evaluations or for training.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    if isinstance(config, configs.External):
        networks = external.modules(config)
        return Stage1(networks, external.codec(config, networks), objective=None)
    assert isinstance(config, configs.Trained)
    made = modules(config)
    return BUILDERS[type(config)](config, made, Networks(made, training))
