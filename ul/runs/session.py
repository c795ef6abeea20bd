"""A training session: build the run of a config and train it in a workdir."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from ul.checkpoints import digests, workdir
from ul.checkpoints.reading import check_nothing_is_missing, verified_steps
from ul.checkpoints.store import Checkpoints
from ul.config import Stage1Config, TrainConfig
from ul.config.schema import CheckpointConfig
from ul.core import compile_cache, files, memory, processes
from ul.core.errors import ConfigError
from ul.data.datasets import Datasets
from ul.inference import api
from ul.inference import weights as saved_weights
from ul.runs import assemble, distillation, latent_statistics, start_log
from ul.runs.latent_cache import cache_identity, open_cache
from ul.stages import distill, registry
from ul.stages.base import Stage2Config
from ul.stages.decoder import DecoderConfig, SeparateDecoderConfig
from ul.stages.pixel_diffusion import PixelDiffusionConfig
from ul.stages.stage import Stage
from ul.train import curves, loop, step_cache
from ul.train.goodput import GoodputLog
from ul.train.guard import Guard
from ul.train.profiler import Profiler
from ul.train.writer import MetricsWriter, NullWriter

log = logging.getLogger("ul")


# The default of loss.rate_floor_bpp, as a fraction of the planned rate.
FLOOR_FRACTION = 0.5
PredictRate = Callable[[Stage, Datasets], float | None]
# Returns the FLOPs of an update, and the FLOP/s of one device, where they are known.
PredictFlops = Callable[[TrainConfig], tuple[float | None, float | None]]


def build_run(
    config: TrainConfig,
    provenance: dict,
    predict_rate: PredictRate = lambda stage, datasets: None,
) -> tuple[loop.Run, dict]:
    """Build the run of a config; also return the provenance of what it is built on.

    provenance: what the workdir recorded. A run that began on one step of stage 1 stays
    on it, even if stage 1 was trained further.
    predict_rate: returns the rate in bits/pixel to expect of a stage 1, if there is one.

    Raises:
      ConfigError, CheckpointError: there is no such stage 1, or it does not fit.
    """
    stage, datasets = registry.build(config), Datasets.from_config(config)
    if isinstance(config, Stage1Config):
        run = assemble.build_stage1_run(config, stage, datasets)
        plan = _plan(config, stage, datasets, provenance, predict_rate)
        planned = plan["rate_bpp"]
        run = dataclasses.replace(run, planned_rate_bpp=planned)
        if config.loss.rate_floor_bpp is None and planned is not None:
            run = dataclasses.replace(run, rate_floor_bpp=FLOOR_FRACTION * planned)
        return run, {"dataset": datasets.report(), "plan": plan}
    if isinstance(config, PixelDiffusionConfig):
        assert stage.codec is not None
        run = assemble.build_stage2_run(config, stage, datasets, stage.codec, {})
        return run, {"dataset": datasets.report()}
    assert isinstance(config, Stage2Config | SeparateDecoderConfig)
    autoencoder, stage1 = api.restore_frozen_stage1(
        config.stage1.workdir,
        stage,
        ("encoder",) if isinstance(config, DecoderConfig) else ("encoder", "decoder"),
        step=config.stage1.step or provenance.get("stage1", {}).get("step"),
        weights=config.stage1.weights,
        mesh=assemble.make_mesh(config),
    )
    codec, frozen, cache = autoencoder.codec, autoencoder.params, None
    record: dict[str, Any] = {"stage1": stage1}
    if isinstance(config, SeparateDecoderConfig):
        run, more = _build_decoder_run(config, stage, datasets, autoencoder, provenance)
        return run, record | more | {"dataset": datasets.report()}
    assert isinstance(config, Stage2Config)
    if config.latent_cache is not None:
        identity = cache_identity(config, datasets, codec, stage1)
        saved_provenance = provenance.get("latent_cache", {})
        cache = open_cache(config, datasets, identity, saved_provenance)
        log.info("latent cache: %s, %s", config.latent_cache, config.latent_dtype)
        frozen = {"decoder": frozen["decoder"]}  # the encoder is no longer needed
        record["latent_cache"] = cache.provenance
    if config.latent_variance is None:
        latents = provenance.get("latents") or latent_statistics.measure(
            datasets, autoencoder, cache, config.eval.batch_size
        )
        config = dataclasses.replace(config, latent_variance=latents["variance"])
        stage, record["latents"] = registry.build(config), latents
    record["stage1"] = stage1 | autoencoder.decoder_identity()
    run = assemble.build_stage2_run(config, stage, datasets, codec, frozen, cache)
    return run, record | {"dataset": datasets.report()}


def _build_decoder_run(
    config: SeparateDecoderConfig,
    stage: Stage,
    datasets: Datasets,
    autoencoder: api.Autoencoder,
    provenance: dict,
) -> tuple[loop.Run, dict[str, Any]]:
    """Build the run of a decoder on a frozen stage 1, new or distilled from its decoder."""
    codec, frozen = autoencoder.codec, autoencoder.params
    build = functools.partial(
        assemble.build_decoder_run, config, stage, datasets, codec, frozen
    )
    if isinstance(config, DecoderConfig):
        initial, record = _initial_weights(config, stage, provenance)
        return build(initial), {"init": record}
    workdir = config.stage1.workdir or ""
    teacher = distill.check_teacher(stage, autoencoder.stage, workdir)
    add_targets = distillation.make_targets(stage, teacher, frozen, config.seed)
    digest = digests.fingerprint(frozen["decoder"])
    run = build(lambda: dict.fromkeys(stage.networks, frozen["decoder"]), add_targets)
    return run, {"teacher": {"decoder": digest}}


def _initial_weights(
    config: DecoderConfig, stage: Stage, provenance: dict
) -> tuple[Callable[[], dict], dict[str, Any]]:
    """Return a function that reads the weights of config.init, and their record.

    Raises:
      ConfigError, CheckpointError: there is no such run, or it has no such step.
    """
    init = config.init
    if init.workdir is None:
        return dict, {}
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    unknown = set(init.networks) - set(shapes)
    if not init.networks or unknown:
        raise ConfigError(
            f"init.networks must name networks that are trained ({', '.join(shapes)}); got "
            f"{', '.join(sorted(unknown)) or 'none'}."
        )
    networks = {name: shapes[name] for name in init.networks}
    record = provenance.get("init")
    if record is None:  # a run that begins; later starts have checkpoints of their own
        chosen = api.choose_weights(init.workdir, init.step, init.weights, networks)
        record = {
            "workdir": init.workdir,
            "step": chosen.step,
            "weights": chosen.name,
        }

    def read() -> dict[str, Any]:
        source = record["workdir"], record["step"], record["weights"]
        chosen = api.choose_weights(*source, networks)
        params = saved_weights.restore(chosen, networks, assemble.make_mesh(config))
        names = ", ".join(networks)
        log.info("initialized %s from %s, step %d", names, *source[:2])
        return params

    return read, record


def _plan(config, stage, datasets, provenance: dict, predict_rate: PredictRate) -> dict:
    """Return the predicted rate of a stage 1 and the loss that it holds for.

    The prediction reads images, so that of an earlier start with the same loss is used.
    """
    weighting = getattr(config.loss, "weighting", None)
    saved = provenance.get("plan", {})
    if saved.get("weighting", ()) == weighting and "rate_bpp" in saved:
        return saved
    return {"weighting": weighting, "rate_bpp": predict_rate(stage, datasets)}


def train(
    config: TrainConfig,
    path: str,
    *,
    profile: tuple[int, int] = (0, 0),
    max_attempts: int = 0,
    allow_changes: bool = False,
    compiled_programs: str = "",
    predict_rate: PredictRate = lambda stage, datasets: None,
    predict_flops: PredictFlops = lambda config: (None, None),
) -> None:
    """Train in the directory `path`, or resume there. profile: first and last step to trace.

    compiled_programs: folder of compiled programs, or an empty string for none.
    predict_rate: see `build_run`.

    Every process of the run calls this; process 0 alone holds and writes the directory.

    Raises:
      UserError: its subclass determines the exit code. Saved work is kept.
    """
    with contextlib.ExitStack() as stack:
        goodput = GoodputLog()
        stack.callback(goodput.enter_phase, "stopped")
        budgets = dataclasses.asdict(config.watchdog)
        guard = stack.enter_context(Guard(path, budgets, goodput.enter_phase))
        if jax.default_backend() == "cpu":
            memory.retain_freed_memory()
        directory, profiler = epath.Path(path), Profiler(path, *profile)
        config, run, provenance = _begin(
            stack, config, path, max_attempts, allow_changes, predict_rate
        )
        flops, peak = predict_flops(config)
        run = dataclasses.replace(run, flops_per_step=flops, peak_flops=peak)
        # Not earlier, because a rejected run leaves nothing behind.
        goodput.open(directory if processes.is_first() else None)
        if compiled_programs:
            compile_cache.enable(compiled_programs)
            run = _keep_compiled_step(run, config, provenance)
        if processes.is_first():
            start_log.log_dataset(provenance["dataset"], config)
            start_log.log_expectations(run, provenance, config)
        checkpoints = open_checkpoints(directory, config.checkpoint)
        stack.callback(profiler.close)
        stack.push(functools.partial(_close, checkpoints))
        with processes.translate_jax_errors():
            open_writer = writer_opener(directory, config, dataclasses.asdict(config))
            loop.train(run, checkpoints, open_writer, guard, profiler, goodput)
        if processes.is_first():
            workdir.clear_start_attempts(directory)
            curves.draw(directory, run.planned_rate_bpp)


def _keep_compiled_step(
    run: loop.Run, config: TrainConfig, provenance: dict
) -> loop.Run:
    """Return the run with a file for its compiled step beside the compiled programs."""
    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    settings = dataclasses.asdict(config)
    identity = step_cache.identity(settings, provenance.get("latents"))
    cache = functools.partial(step_cache.StepCache, folder, identity)
    return dataclasses.replace(run, step_cache=cache)


def _begin(
    stack: contextlib.ExitStack,
    config: TrainConfig,
    path: str,
    max_attempts: int,
    allow_changes: bool,
    predict_rate: PredictRate,
) -> tuple[TrainConfig, loop.Run, dict[str, Any]]:
    """Enter the workdir, build the run and write config.json; return what will be run.

    The workdir is locked as long as `stack` lasts.
    """
    # A barrier that gives up names the missing processes, so it must do so before the
    # watchdog ends this one.
    seconds = config.watchdog.start / 2.0
    with contextlib.ExitStack() as building:
        saved_provenance = processes.run_on_first(
            "enter workdir",
            lambda: enter_workdir(stack, building, config, path, max_attempts),
            seconds,
        )
        final = _keep_latent_scale(config, saved_provenance)
        run, provenance = processes.run_on_all(
            "build", lambda: build_run(final, saved_provenance, predict_rate), seconds
        )
        provenance |= run_provenance(run)
        settings = dataclasses.asdict(final)
        check_processes_agree(settings, provenance, seconds)
        processes.run_on_first(
            "write config.json",
            lambda: write_config(epath.Path(path), settings, provenance, allow_changes),
            seconds,
        )
    return final, run, provenance


def write_config(
    directory: epath.Path, settings: dict, provenance: dict, allow_changes: bool
) -> None:
    """Write config.json, see `workdir.write_or_check_config`."""
    workdir.write_or_check_config(
        directory,
        settings,
        provenance,
        allow_changes=allow_changes,
        complete=_complete,
    )


def _complete(saved: dict) -> dict:
    """Return a saved config with the defaults of the settings that it lacks."""
    try:
        return dataclasses.asdict(registry.parse(registry.to_dict(saved)))
    except ConfigError:  # it has keys that were renamed; the comparison names them
        return saved


def _keep_latent_scale(config: TrainConfig, provenance: dict) -> TrainConfig:
    """Return the config of a run that began before latents were measured, without a shift."""
    is_older = bool(provenance) and "latents" not in provenance
    if is_older and getattr(config, "latent_variance", 1.0) is None:
        return dataclasses.replace(config, latent_variance=1.0)  # type: ignore[call-arg]
    return config


def enter_workdir(
    stack: contextlib.ExitStack,
    building: contextlib.ExitStack,
    config: TrainConfig,
    path: str,
    max_attempts: int,
) -> dict[str, Any]:
    """Lock the workdir before anything in it is read, and count this start.

    The lock lasts as long as `stack`; a start that fails within `building` does not count.
    Returns the provenance that an earlier start recorded.
    """
    directory = epath.Path(path)
    is_new = not files.exists(directory)
    stack.enter_context(workdir.lock_directory(path))
    check_nothing_is_missing(directory)
    saved = workdir.load_saved(directory)
    newest = max(verified_steps(directory), default=0)
    start_log.log_changed_steps(saved.get("config", {}), config, newest)
    building.enter_context(
        workdir.count_start(directory, newest, max_attempts, is_new=is_new)
    )
    return saved.get("provenance", {})


def _close(checkpoints: Checkpoints, kind, error, traceback) -> None:
    """Finish a pending save.

    After an error in a run of several processes do not wait, because other processes may
    have ended.
    """
    if error is None or processes.count() == 1:
        checkpoints.close()


def run_provenance(run: loop.Run) -> dict[str, Any]:
    """Return what a workdir records of the machine and of the data."""
    return {
        "mesh": dict(run.mesh.shape),
        "processes": processes.count(),
        "devices": run.mesh.devices.flat[0].device_kind,
        "data": run.data_digest,
    }


def check_processes_agree(settings: dict, provenance: dict, seconds: float) -> None:
    """Check that all processes run the same code on the same config, packages and data.

    Raises:
      ConfigError: on all of them, with the first process that differs and both values.
    """
    own = workdir.process_invariants(settings, provenance)
    first = processes.run_on_first("share config and data digest", lambda: own, seconds)

    def compare():
        if differences := workdir.value_differences(own, first):
            raise ConfigError(
                "All processes must run the same config, code, packages and data; this one "
                f"differs from process 0: {'; '.join(differences[:5])}. Start every process "
                "with the same command and checkout."
            )

    processes.run_on_all("compare configs", compare, seconds)


def open_checkpoints(path: epath.Path, config: CheckpointConfig) -> Checkpoints:
    """Open the checkpoints of a workdir with the retention of the config."""
    return Checkpoints(
        path,
        keep=config.keep,
        keep_every=config.keep_every,
        keep_minutes=config.keep_minutes,
    )


def writer_opener(path: epath.Path, config: TrainConfig, settings: dict):
    """Return `open_writer(step)`; only the first process writes."""
    if not processes.is_first():
        return lambda step: NullWriter()
    return functools.partial(
        MetricsWriter,
        path,
        tensorboard=config.log.tensorboard,
        wandb=config.log.wandb,
        config=settings,
    )
