"""What a run has stored: its config, and weights of its state on any mesh."""

import dataclasses
import logging
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from ul import config
from ul.checkpoints import safetensors, store
from ul.checkpoints.workdir import load_config
from ul.core import ema_names
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.stages import registry
from ul.train import ema

log = logging.getLogger("ul")

# How far from the wanted profile a combination of stored ones may be, in parts of it.
FARTHEST = 0.05


def load_config_of(workdir, kind) -> Any:
    """The parsed config of a run, which must be of a `kind` of stage.

    Raises:
      ConfigError: no run there, or of another kind.
    """
    plain = registry.plain(load_config(workdir)["config"])
    parsed = config.parse(plain, config.RunConfig)
    if not isinstance(parsed, kind):
        raise ConfigError(
            f"{workdir} holds a run of stage {parsed.stage!r}; wanted is one of "
            f"{', '.join(n for n, k in config.STAGES.items() if issubclass(k, kind))}"
        )
    # How attention is computed is no part of the weights.
    on_gpu = jax.default_backend() == "gpu"
    return (
        parsed
        if on_gpu or not registry.uses_cudnn(parsed)
        else registry.portable(parsed)
    )


def steps(workdir) -> list[int]:
    """Steps whose weights can be loaded, ascending: the verified ones, an export's one.

    Raises:
      ConfigError: neither a run's workdir nor an export.
    """
    export = safetensors.record(workdir)
    return [export["step"]] if export else store.verified_steps(workdir)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that are there, named as in a record.

    parts: (factor, step, path in the state) of what they are the sum of, a single one
    where they are stored themselves; none in an export. ema_sources: what a record says of
    weights that are not stored.
    """

    workdir: str
    step: int
    name: str
    parts: tuple[tuple[float, int, tuple[str, ...]], ...]
    ema_sources: dict[str, Any]


def choose_step(workdir, step: int | None) -> int:
    """`step`, or the newest one, provided that it can be loaded.

    Raises:
      CheckpointError: naming what there is.
    """
    export = safetensors.record(workdir)
    if export is None:
        return store.choose(workdir, step)
    if step not in (None, export["step"]):
        raise CheckpointError(f"{workdir} has no step {step}, only {export['step']}")
    return export["step"]


def choose(workdir, parsed: config.RunConfig, step: int | None, name: str) -> Weights:
    """The weights of that name at `step`, or at the newest one.

    Raises:
      CheckpointError: no such step, or too few to make the weights of.
      ConfigError: no such weights.
    """
    export = safetensors.record(workdir)
    step = choose_step(workdir, step)
    if export is not None:
        held = export["weights"]
        # "ema" is what is asked for where nothing is said.
        same = name in ("ema", held)
        if not same and weights_path(parsed, name) != weights_path(parsed, held):
            raise ConfigError(f"{workdir} was exported with weights {held}, not {name}")
        return Weights(str(workdir), step, held, (), export["source"]["ema_sources"])
    widths = {n: w for n in _averages(parsed) if (w := ema_names.width(n)) is not None}
    if widths and ema_names.width(name) is not None and name not in widths:
        return _made(str(workdir), step, name, widths)
    parts = ((1.0, step, weights_path(parsed, name)),)
    return Weights(str(workdir), step, name, parts, {})


def _made(workdir: str, step: int, name: str, widths: dict[str, float]) -> Weights:
    """A power-function average that was not kept, of those that were, by name and width.

    Raises:
      CheckpointError: they do not make it.
    """
    width = ema_names.width(name)
    assert width is not None
    at = [s for s in store.verified_steps(workdir) if 0 < s <= step]
    kept = [(s, n) for s in at for n in widths]
    found = ema.combine([(s, widths[n]) for s, n in kept], step, width)
    if found.off > FARTHEST:
        raise CheckpointError(
            f"weights {name!r} of step {step} cannot be made of {', '.join(widths)} at "
            f"the {len(at)} steps that {workdir} keeps: {found.off:.1%} off, at most "
            f"{FARTHEST:.0%}; choose a width between them or nearer, or keep more steps "
            "(checkpoint.keep_every)"
        )
    log.info("weights %s: of %d steps, %.2g off", name, len(at), found.off)
    ema_sources = {"averages": list(widths), "steps": at, "off": found.off}
    parts = tuple(
        (factor, s, ("ema", n))
        for factor, (s, n) in zip(found.factors, kept, strict=True)
    )
    return Weights(workdir, step, name, parts, ema_sources)


def _averages(parsed: config.RunConfig) -> list[str]:
    """Names of the averages that a state has."""
    return list(map(str, parsed.ema)) if isinstance(parsed, config.TrainConfig) else []


def weights_path(parsed: config.RunConfig, weights: str) -> tuple[str, ...]:
    """Where in the state the weights lie: "ema" (the first), "ema:<decay>",
    "power:<width>" or "raw".

    Of what was imported there is one set, which "ema" means as well.

    Raises:
      ConfigError: naming what there is.
    """
    names = _averages(parsed)
    if weights == "raw" or weights == "ema" and not names:
        return ("params",)
    if weights == "ema":
        return ("ema", names[0])
    if weights.removeprefix("ema:") in names:
        return ("ema", weights.removeprefix("ema:"))
    known = ["raw", "ema", *(n if ema_names.width(n) else f"ema:{n}" for n in names)]
    if any(map(ema_names.width, names)):
        known += ["power:<any width under 0.2887>"]
    raise ConfigError(
        f"weights {weights!r} are not in the checkpoint; known are {known}"
    )


def base(
    chosen: Weights, parsed: config.Stage2Config | config.PixelDiffusionConfig, mesh
) -> Any:
    """Parameters of the network of a stage 2. Raises as `restore`."""
    shapes = jax.eval_shape(lambda: registry.init_base(parsed, jax.random.key(0)))
    return restore(chosen, {"base": shapes}, mesh)["base"]


def restore(chosen: Weights, shapes: dict[str, Any], mesh) -> dict[str, Any]:
    """Parameters of the named networks, of the given shapes, laid out on `mesh`.

    "base" is that of a stage 2, whose state has no other.

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
    if not chosen.parts:
        return safetensors.read(chosen.workdir, abstract)
    alone = len(chosen.parts) == 1
    total: Any = None
    bar = tqdm(
        chosen.parts,
        desc=f"weights {chosen.name}",
        unit="average",
        disable=alone,
        dynamic_ncols=True,
    )
    for factor, step, path in bar:
        part = _stored(chosen.workdir, step, path, abstract.get("base", abstract))
        total = part if alone else _plus(total, factor, part)
    return {"base": total} if "base" in abstract else total


def _stored(workdir: str, step: int, path: tuple[str, ...], abstract) -> Any:
    """What lies at `path` of a state."""
    for part in reversed(path):
        abstract = {part: abstract}
    found = store.restore_part(workdir, step, abstract)
    for part in path:
        found = found[part]
    return found


def _plus(total, factor: float, part):
    """total + factor part; None is nothing yet."""
    if total is None:
        return jax.tree.map(lambda p: factor * p, part)
    return jax.tree.map(lambda t, p: t + factor * p, total, part)


def below(workdir, moved: str | None = None) -> str:
    """The directory of the stage 1 that a stage 2 was trained on: where it was `moved`
    to, inside an export, as it was given, or beside the stage 2's.

    Raises:
      CheckpointError, ConfigError (through `choose`) later, if it is nowhere.
    """
    given = load_config(workdir)["provenance"]["stage1"]["workdir"]
    here = epath.Path(workdir).resolve()
    inside, beside = here / "stage1", here.parent / epath.Path(given).name
    if moved or (inside / "config.json").exists():
        return moved or str(inside)
    return given if epath.Path(given).exists() or not beside.exists() else str(beside)
