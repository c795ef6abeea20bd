"""Load trained models: what `import ul` offers."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax

from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.inference import autoguidance
from ul.inference import weights as saved_weights
from ul.inference.conditions import AnyClass
from ul.inference.models import Autoencoder, Generator, seed_key
from ul.inference.weights import SavedRun
from ul.stages import registry
from ul.stages.decoder import combine
from ul.stages.stage import Stage

__all__ = [
    "AnyClass",
    "Autoencoder",
    "Generator",
    "load_autoencoder",
    "load_generator",
    "restore_frozen_stage1",
    "restore_stage1",
    "seed_key",
]
log = logging.getLogger("ul")


def load_autoencoder(
    workdir,
    *,
    step: int | None = None,
    weights: str = "ema",
    with_prior: bool = False,
    stage1_workdir: str | None = None,
) -> Autoencoder:
    """Load encoder and decoder of the stage-1 run in `workdir`, on all devices.

    The architecture comes from the run's config.json, the weights from a verified
    checkpoint: `step`, or the newest. A directory of `ul export` works too. The methods
    `rate` and `bit_maps` need the prior too. stage1_workdir: where the encoder of a
    separate decoder is, if it was moved.

    Raises:
      ConfigError: there is no stage-1 run, or it has no such weights.
      CheckpointError: there is no verified checkpoint, or it is damaged.
      DataError: files of an export are damaged.
    """
    networks = ("encoder", "decoder") + ("prior",) * with_prior
    return restore_stage1(
        workdir, networks, step=step, weights=weights, stage1_workdir=stage1_workdir
    )


def restore_stage1(
    workdir,
    networks: Sequence[str],
    *,
    step: int | None,
    weights: str,
    mesh: jax.sharding.Mesh | None = None,
    stage1_workdir: str | None = None,
) -> Autoencoder:
    """Restore the named networks of a stage-1 run, such as "prior" besides the others.

    Raises as `load_autoencoder`.
    """
    run = saved_weights.load_run(workdir, registry.AutoencoderConfig)
    chosen = saved_weights.choose(run, step, weights)
    if run.stage.uses_stage1:
        return _with_separate_decoder(run, chosen, networks, mesh, stage1_workdir)
    _check_no_stage1(workdir, stage1_workdir)
    shapes = jax.eval_shape(lambda: run.stage.init(jax.random.key(0)))
    requested = {name: shapes[name] for name in networks if name in shapes}
    mesh = mesh or meshes.make()
    params = saved_weights.restore(chosen, requested, mesh)
    return _autoencoder(run, params, mesh, chosen)


def _check_no_stage1(workdir, stage1_workdir: str | None) -> None:
    """Raise ConfigError if a run without a frozen stage 1 is to get one."""
    if stage1_workdir is not None:
        raise ConfigError(
            "--stage1_workdir and --decoder are for runs on a frozen stage 1; "
            f"{workdir} has networks of its own. Remove the flag, or pass {stage1_workdir} "
            "as --workdir."
        )


def _with_separate_decoder(
    run: SavedRun,
    chosen: saved_weights.Weights,
    networks: Sequence[str],
    mesh: jax.sharding.Mesh | None,
    stage1_workdir: str | None,
) -> Autoencoder:
    """Restore the encoder of a run's stage 1 with the run's own decoder."""
    others = [name for name in networks if name != "decoder"]
    stage1 = _recorded_stage1(run, others, moved_to=stage1_workdir, mesh=mesh)
    params = stage1.params
    if "decoder" in networks:
        shapes = jax.eval_shape(lambda: run.stage.init(jax.random.key(0)))
        decoder = {"decoder": shapes["decoder"]}  # and no auxiliary network
        params = params | saved_weights.restore(chosen, decoder, stage1.mesh)
    combined = dataclasses.replace(run, stage=combine(stage1.stage, run.stage))
    return _autoencoder(combined, params, stage1.mesh, chosen)


def _autoencoder(
    run: SavedRun, params, mesh: jax.sharding.Mesh, chosen: saved_weights.Weights
) -> Autoencoder:
    return Autoencoder(
        run.stage,
        run.datasets,
        params,
        mesh,
        chosen.step,
        chosen.name,
        chosen.ema_sources,
    )


def choose_weights(
    workdir: str, step: int | None, weights: str, networks: dict[str, Any]
) -> saved_weights.Weights:
    """Return weights of a run that has these networks, given by name with their shapes.

    Raises:
      ConfigError, CheckpointError: as `load_autoencoder`; the run has other networks.
    """
    run = saved_weights.load_run(workdir)
    shapes = jax.eval_shape(lambda: run.stage.init(jax.random.key(0)))
    for name, expected in networks.items():
        if not _have_equal_shapes(shapes.get(name), expected):
            raise ConfigError(
                f"{name} of {workdir} must be the network of this config; it has other "
                f"shapes. Make the settings of {name} equal, or start from another run."
            )
    return saved_weights.choose(run, step, weights)


def _have_equal_shapes(a: Any, b: Any) -> bool:
    leaves_a, leaves_b = (jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b))
    return {p: x.shape for p, x in leaves_a} == {p: x.shape for p, x in leaves_b}


def restore_frozen_stage1(
    workdir: str | None,
    stage2: Stage,
    networks: Sequence[str],
    *,
    step: int | None,
    weights: str,
    mesh: jax.sharding.Mesh,
) -> tuple[Autoencoder, dict[str, Any]]:
    """Restore the stage 1 that a stage 2 is trained on; also return its identity.

    Raises:
      ConfigError: no stage 1 is given, or it does not fit.
      CheckpointError: there is no such checkpoint.
    """
    if not workdir:
        raise ConfigError(
            f"stage1.workdir is required for stage {stage2.name!r}, but it is not set. Pass "
            "--config.stage1.workdir=DIRECTORY, the workdir of its stage 1."
        )
    autoencoder = restore_stage1(
        workdir, networks, step=step, weights=weights, mesh=mesh
    )
    registry.check_stage1(stage2, autoencoder.stage, workdir)
    log.info(
        "loaded stage 1 from %s: step %d, weights %s",
        workdir,
        autoencoder.step,
        autoencoder.weights,
    )
    return autoencoder, autoencoder.identity(workdir)


def load_generator(
    workdir,
    *,
    step: int | None = None,
    weights: str = "ema",
    stage1_workdir: str | None = None,
    guiding_model: str | None = None,
) -> Generator:
    """Load the generator in `workdir` with the stage 1 that it was trained on.

    stage1_workdir: the directory of stage 1, if it was moved, or a run with another decoder
    on its encoder. guiding_model: a smaller or less trained stage 2 on the same latents for
    autoguidance, WORKDIR[:step][@weights].

    Raises:
      ConfigError, CheckpointError, DataError: as `load_autoencoder`, for either stage; or
        a guiding model that does not fit.
    """
    run = saved_weights.load_run(workdir, registry.GeneratorConfig)
    if not run.stage.uses_stage1:
        _check_no_stage1(workdir, stage1_workdir)
    if run.stage.is_autoencoder:
        return _single_stage_generator(run, step, weights, guiding_model)
    chosen = saved_weights.choose(run, step, weights)
    if run.stage.uses_stage1:
        autoencoder = _recorded_stage1(
            run, ("encoder", "decoder"), moved_to=stage1_workdir
        )
    else:
        autoencoder = _autoencoder(run, {}, meshes.make(), chosen)
    mesh, sampler = autoencoder.mesh, run.stage.sampler
    assert sampler is not None
    params = saved_weights.restore_generator(chosen, run.stage, mesh)
    guiding = None
    if guiding_model is not None:
        guiding = autoguidance.load_guiding_model(guiding_model, run, mesh)
        sampler = dataclasses.replace(sampler, denoise_guiding=guiding.denoise_latent)
    return Generator(
        run.stage,
        run.datasets,
        sampler,
        params,
        autoencoder,
        chosen.step,
        chosen.name,
        chosen.ema_sources,
        guiding,
    )


def _single_stage_generator(
    run: SavedRun, step: int | None, weights: str, guiding_model: str | None
) -> Generator:
    """Load a single stage, whose prior is sampled from."""
    if guiding_model is not None:
        raise ConfigError(
            "Autoguidance needs two models on the same latents, but no other run shares the "
            f"latents of the single-stage run {run.workdir}. Remove --autoguidance."
        )
    autoencoder = restore_stage1(
        run.workdir, ("encoder", "prior", "decoder"), step=step, weights=weights
    )
    assert run.stage.sampler is not None
    return Generator(
        run.stage,
        run.datasets,
        run.stage.sampler,
        autoencoder.params["prior"],
        autoencoder,
        autoencoder.step,
        autoencoder.weights,
        autoencoder.ema_sources,
    )


def recorded_weights(
    run: SavedRun, stage1_workdir: str | None
) -> tuple[int | None, str]:
    """Return step and weights of the stage 1 of a run: those with which it was trained.

    stage1_workdir: another place of stage 1, or a run with another decoder, of which they
    are the newest.
    """
    recorded = run.provenance["stage1"]
    if stage1_workdir is not None:
        stage = saved_weights.load_run(stage1_workdir).stage
        # Older versions did not record the stage.
        is_same = stage.name == recorded.get("stage", stage.name)
        if not is_same or ("stage" not in recorded and stage.separate_decoder):
            return None, "ema"
    return recorded["step"], recorded["weights"]


def _recorded_stage1(
    run: SavedRun,
    networks: Sequence[str],
    *,
    moved_to: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Autoencoder:
    """Restore the stage 1 that a run was trained on, or another decoder on its encoder."""
    recorded = run.provenance["stage1"]
    workdir = saved_weights.find_stage1(run, moved_to)
    step, weights = recorded_weights(run, moved_to)
    autoencoder = restore_stage1(
        workdir, networks, step=step, weights=weights, mesh=mesh
    )
    registry.check_stage1(run.stage, autoencoder.stage, workdir)
    digest = autoencoder.identity(workdir)["encoder"]
    if digest != recorded["encoder"]:
        raise CheckpointError(
            f"{run.workdir} was trained on the encoder {recorded['encoder']} of "
            f"{recorded['workdir']}; the one in {workdir} is another encoder ({digest}). "
            "Pass the directory of the original stage 1."
        )
    return autoencoder
