"""Saved runs: the stage that a workdir holds, and the weights of its checkpoints."""

import dataclasses
import logging
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from ul.checkpoints import reading, safetensors
from ul.checkpoints.workdir import load_run_record
from ul.core import ema_names
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.data.datasets import Datasets
from ul.models import attention_kernels
from ul.stages import kinds, registry
from ul.stages.stage import Stage
from ul.train import ema

log = logging.getLogger("ul")

# How far a combination of stored averages may be from the requested profile, relatively.
MAX_COMBINATION_ERROR = 0.05


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The contents of a workdir or an export, without its weights.

    ema_names: names of the averages in its checkpoints, the default first; empty for an
    imported autoencoder. record: config.json, with `config` and `provenance`.
    """

    workdir: str
    stage: Stage
    datasets: Datasets
    ema_names: tuple[str, ...]
    record: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance that the run recorded: its data, stage 1 and devices."""
        return self.record["provenance"]


def load_run(workdir, accepts: type = registry.RunConfig) -> SavedRun:
    """Read the config of a run and build its stage; the config is not needed afterwards.

    accepts: a base class of the configs that the caller can use.

    Raises:
      ConfigError: there is no run, or one of another stage.
    """
    record = load_run_record(workdir)
    try:
        config = registry.parse(registry.to_dict(record["config"]), accepts)
    except ConfigError as e:
        raise ConfigError(
            f"{workdir} cannot be used here: {e} Pass another workdir."
        ) from e
    if getattr(config, "latent_variance", 1.0) is None:
        measured = record["provenance"]["latents"]["variance"]
        config = dataclasses.replace(config, latent_variance=measured)
    # The implementation of attention is not a part of the weights.
    for implementation, platform in attention_kernels.PLATFORMS.items():
        needs_other = jax.default_backend() != platform
        if needs_other and kinds.networks_with_attention(config, implementation):
            config = kinds.with_attention(config, "auto")
    return SavedRun(
        str(workdir),
        registry.build(config),
        Datasets.from_config(config),
        tuple(map(str, getattr(config, "ema", ()))),
        record,
    )


def steps(workdir) -> list[int]:
    """Return the steps whose weights can be loaded, ascending.

    They are the verified steps of a run, or the one step of an export.

    Raises:
      ConfigError: this is neither a run's workdir nor an export.
    """
    export = safetensors.read_export_record(workdir)
    return [export["step"]] if export else reading.verified_steps(workdir)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that can be loaded.

    name: "raw", "ema", "ema:<decay>" or "power:<width>". parts: (factor, step, path in
    the state) of the stored arrays whose sum they are; one part if they are stored
    themselves, none for an export. ema_sources: for records, the stored averages that
    weights were combined from.
    """

    workdir: str
    step: int
    name: str
    parts: tuple[tuple[float, int, tuple[str, ...]], ...]
    ema_sources: dict[str, Any]


def choose_step(workdir, step: int | None) -> int:
    """Return `step`, or the newest one, if it can be loaded.

    Raises:
      CheckpointError: it cannot, with the steps that can.
    """
    export = safetensors.read_export_record(workdir)
    if export is None:
        return reading.choose_verified_step(workdir, step)
    if step not in (None, export["step"]):
        raise CheckpointError(
            f"The export {workdir} holds step {export['step']} only; got step {step}. Omit "
            f"the step, or export step {step}."
        )
    return export["step"]


def choose(run: SavedRun, step: int | None, name: str) -> Weights:
    """Return the weights of that name at `step`, or at the newest one.

    Raises:
      CheckpointError: no such step, or too few averages to combine the weights from.
      ConfigError: no such weights.
    """
    export = safetensors.read_export_record(run.workdir)
    step = choose_step(run.workdir, step)
    if export is not None:
        exported = export["weights"]
        # "ema" is the default, so it means whatever was exported.
        is_same = name in ("ema", exported)
        if not is_same and weights_path(run, name) != weights_path(run, exported):
            raise ConfigError(
                f"The export {run.workdir} holds weights {exported!r} only; got {name!r}. "
                f"Omit the weights, or export {name!r}."
            )
        return Weights(run.workdir, step, exported, (), export["source"]["ema_sources"])
    widths = {
        n: width
        for n in run.ema_names
        if (width := ema_names.relative_std(n)) is not None
    }
    if widths and ema_names.relative_std(name) is not None and name not in widths:
        return _combined(run.workdir, step, name, widths)
    parts = ((1.0, step, weights_path(run, name)),)
    return Weights(run.workdir, step, name, parts, {})


def _combined(workdir: str, step: int, name: str, widths: dict[str, float]) -> Weights:
    """Combine a power-function average that is not stored from the stored ones.

    widths: widths of the stored averages by name (arXiv 2312.02696, post-hoc EMA).

    Raises:
      CheckpointError: they do not give it accurately enough.
    """
    width = ema_names.relative_std(name)
    assert width is not None
    steps = [s for s in reading.verified_steps(workdir) if 0 < s <= step]
    averages = [(s, n) for s in steps for n in widths]
    combination = ema.find_combination(
        [(s, widths[n]) for s, n in averages], step, width
    )
    if combination.relative_error > MAX_COMBINATION_ERROR:
        raise CheckpointError(
            f"The relative error of {name!r} at step {step}, combined from "
            f"{', '.join(widths)} at the {len(steps)} steps kept in {workdir}, must be at "
            f"most {MAX_COMBINATION_ERROR:.0%}; the best combination has "
            f"{combination.relative_error:.1%}. Choose a width nearer to the stored ones, or "
            "keep more steps (checkpoint.keep_every)."
        )
    log.info(
        "combined %s from averages at %d steps (relative error %.2g)",
        name,
        len(steps),
        combination.relative_error,
    )
    sources = {
        "averages": list(widths),
        "steps": steps,
        "relative_error": combination.relative_error,
    }
    parts = tuple(
        (factor, s, ("ema", n))
        for factor, (s, n) in zip(combination.coefficients, averages, strict=True)
    )
    return Weights(workdir, step, name, parts, sources)


def weights_path(run: SavedRun, name: str) -> tuple[str, ...]:
    """Return the path of weights in a run's state.

    name: "raw", "ema" (the default average), "ema:<decay>" or "power:<width>". Imported
    weights have no averages, and "ema" means the weights themselves.

    Raises:
      ConfigError: there are no such weights, with those that there are.
    """
    names = run.ema_names
    if name == "raw" or name == "ema" and not names:
        return ("params",)
    if name == "ema":
        return ("ema", names[0])
    if name.removeprefix("ema:") in names:
        return ("ema", name.removeprefix("ema:"))
    known = [
        "raw",
        "ema",
        *(n if ema_names.relative_std(n) else f"ema:{n}" for n in names),
    ]
    if any(map(ema_names.relative_std, names)):
        known += ["power:<any width under 0.2887>"]
    raise ConfigError(f"weights must be one of {', '.join(known)}; got {name!r}.")


def restore(chosen: Weights, shapes: dict[str, Any], mesh) -> dict[str, Any]:
    """Restore parameters of the given shapes by network name, laid out on `mesh`.

    shapes: by network; a stage 2 has one network, {"base": shapes}.

    Raises:
      CheckpointError: unreadable, damaged, or of other shapes.
      DataError: the same for an export.
    """
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.tree_shardings(mesh, shapes),
    )
    if not chosen.parts:
        return safetensors.read_networks(chosen.workdir, abstract)
    is_single = len(chosen.parts) == 1
    total: Any = None
    bar = tqdm(
        chosen.parts,
        desc=f"weights {chosen.name}",
        unit="average",
        disable=is_single,
        dynamic_ncols=True,
    )
    for factor, step, path in bar:
        part = _stored(chosen.workdir, step, path, abstract.get("base", abstract))
        total = part if is_single else _plus(total, factor, part)
    return {"base": total} if "base" in abstract else total


def _stored(workdir: str, step: int, path: tuple[str, ...], abstract) -> Any:
    """Restore the part of a state at `path`."""
    for name in reversed(path):
        abstract = {name: abstract}
    state = reading.restore_subtree(workdir, step, abstract)
    for name in path:
        state = state[name]
    return state


def _plus(total, factor: float, part):
    """Return total + factor * part; a total of None is zero."""
    if total is None:
        return jax.tree.map(lambda p: factor * p, part)
    return jax.tree.map(lambda t, p: t + factor * p, total, part)


def restore_generator(chosen: Weights, stage: Stage, mesh) -> Any:
    """Restore the parameters of a stage 2's network. Raises as `restore`."""
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    return restore(chosen, {"base": shapes}, mesh)["base"]


def find_stage1(run: SavedRun, moved_to: str | None = None) -> str:
    """Return the directory of the stage 1 that a stage 2 was trained on.

    It is `moved_to` if given, else inside the export, as recorded, or beside the stage 2.
    A directory that does not exist is reported by whoever loads it.
    """
    recorded = run.provenance["stage1"]["workdir"]
    directory = epath.Path(run.workdir).resolve()
    inside = directory / "stage1"
    beside = directory.parent / epath.Path(recorded).name
    if moved_to or (inside / "config.json").exists():
        return moved_to or str(inside)
    if epath.Path(recorded).exists() or not beside.exists():
        return recorded
    return str(beside)
