"""What a run has stored: its config, and weights of its state on any mesh."""

from typing import Any

import jax

from ul import build, config
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.train import checkpoint
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


def restore(workdir, step: int, path: tuple[str, ...], shapes, mesh):
    """Weights at `path` of the state with the given shapes, laid out on `mesh`.

    Raises:
      CheckpointError: unreadable, damaged, or of other shapes.
    """
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        meshes.shardings(mesh, shapes),
    )
    for part in reversed(path):
        abstract = {part: abstract}
    found = checkpoint.restore_part(workdir, step, abstract)
    for part in path:
        found = found[part]
    return found
