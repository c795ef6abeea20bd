"""What a run has stored: its config, and weights of its state on any mesh."""

import dataclasses
from typing import Any

import jax
from etils import epath

from ul import build, config
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.train import checkpoint, exported
from ul.train.workdir import load_config


def load_config_of(workdir, kind) -> Any:
    """The parsed config of a run, which must be of a `kind` of stage.

    Raises:
      ConfigError: no run there, or of another kind.
    """
    plain = build.plain(load_config(workdir)["config"])
    parsed = config.parse(plain, config.Settings)
    if not isinstance(parsed, kind):
        raise ConfigError(
            f"{workdir} holds a run of stage {parsed.stage!r}; wanted is one of "
            f"{', '.join(n for n, k in config.STAGES.items() if issubclass(k, kind))}"
        )
    # How attention is computed is no part of the weights.
    on_gpu = jax.default_backend() == "gpu"
    return parsed if on_gpu or not build.uses_cudnn(parsed) else build.portable(parsed)


def steps(workdir) -> list[int]:
    """Steps whose weights can be loaded, ascending: the verified ones, an export's one.

    Raises:
      ConfigError: neither a run's workdir nor an export.
    """
    export = exported.record(workdir)
    return [export["step"]] if export else checkpoint.verified_steps(workdir)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that are there, named as in a record. path: where a state holds them;
    None in an export."""

    workdir: str
    step: int
    name: str
    path: tuple[str, ...] | None


def choose_step(workdir, step: int | None) -> int:
    """`step`, or the newest one, provided that it can be loaded.

    Raises:
      CheckpointError: naming what there is.
    """
    export = exported.record(workdir)
    if export is None:
        return checkpoint.choose(workdir, step)
    if step not in (None, export["step"]):
        raise CheckpointError(f"{workdir} has no step {step}, only {export['step']}")
    return export["step"]


def choose(workdir, parsed: config.Settings, step: int | None, name: str) -> Weights:
    """The weights of that name at `step`, or at the newest one.

    Raises:
      CheckpointError: no such step.
      ConfigError: no such weights.
    """
    export, path = exported.record(workdir), None
    if export is None:
        path = weights_path(parsed, name)
    else:
        held = export["weights"]
        # "ema" is what is asked for where nothing is said.
        same = name in ("ema", held)
        if not same and weights_path(parsed, name) != weights_path(parsed, held):
            raise ConfigError(f"{workdir} was exported with weights {held}, not {name}")
        name = held
    return Weights(str(workdir), choose_step(workdir, step), name, path)


def weights_path(parsed: config.Settings, weights: str) -> tuple[str, ...]:
    """Where in the state the weights lie: "ema" (the first), "ema:<decay>" or "raw".

    Of what was imported there is one set, which "ema" means as well.

    Raises:
      ConfigError: naming what there is.
    """
    decays = parsed.ema if isinstance(parsed, config.Common) else ()
    names = [str(decay) for decay in decays]
    if weights == "raw" or weights == "ema" and not names:
        return ("params",)
    if weights == "ema":
        return ("ema", names[0])
    if weights.removeprefix("ema:") in names:
        return ("ema", weights.removeprefix("ema:"))
    known = ["raw", "ema", *(f"ema:{n}" for n in names)]
    raise ConfigError(
        f"weights {weights!r} are not in the checkpoint; known are {known}"
    )


def restore(chosen: Weights, shapes: dict[str, Any], mesh, base: bool = False) -> Any:
    """Weights of the given shapes, laid out on `mesh`: of networks by name or, of a
    stage 2, of the `base` alone.

    Raises:
      CheckpointError: unreadable, damaged, or of other shapes.
      DataError: the same of an export.
    """
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.shardings(mesh, shapes),
    )
    if chosen.path is None:
        networks = {"base": abstract} if base else abstract
        found = exported.read(chosen.workdir, networks)
        return found["base"] if base else found
    for part in reversed(chosen.path):
        abstract = {part: abstract}
    found = checkpoint.restore_part(chosen.workdir, chosen.step, abstract)
    for part in chosen.path:
        found = found[part]
    return found


def below(workdir, moved: str | None = None) -> str:
    """The directory of the stage 1 that a stage 2 was trained on: where it was `moved`
    to, inside an export, as it was given, or beside the stage 2's.

    Raises:
      CheckpointError, ConfigError (through `choose`) later, if it is nowhere.
    """
    given = load_config(workdir)["facts"]["stage1"]["workdir"]
    here = epath.Path(workdir).resolve()
    inside, beside = here / "stage1", here.parent / epath.Path(given).name
    if moved or (inside / "config.json").exists():
        return moved or str(inside)
    return given if epath.Path(given).exists() or not beside.exists() else str(beside)
