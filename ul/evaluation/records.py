"""Where an evaluation lands: a JSON record with its protocol, pictures beside it."""

import datetime
import json

import jax
import numpy as np
from etils import epath

from ul.core.errors import DataError, StorageError
from ul.core.files import write_atomic
from ul.train.workdir import code_version
from ul.train.writer import save_bytes, save_png

PICTURES = 10


def check_count(images: np.ndarray) -> None:
    """Raises DataError for fewer than two held-out images."""
    if len(images) < 2:
        raise DataError("the data hold out one image; an evaluation needs two or more")


def zoom(images: np.ndarray) -> int:
    return max(1, 48 // images.shape[1])


def folder(workdir) -> epath.Path:
    """workdir/evals, made before anything expensive.

    Raises:
      StorageError: it cannot be made.
    """
    where = epath.Path(workdir) / "evals"
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{where} cannot be made: {e}") from e
    return where


def write(
    folder, name: str, loaded, seed: int, result, protocol, picture, drawings=None
) -> dict:
    """evals/<name>-<step>-<weights>-seed<seed>-n<count>.json, a picture beside it, and
    `drawings` (suffix: PNG bytes).

    Raises:
      StorageError: the disk refuses.
    """
    stem = (
        f"{name}-{loaded.step}-{loaded.weights.replace(':', '')}"
        f"-seed{seed}-n{result['num_examples']}"
    )
    record = {
        "evaluation": name,
        "step": loaded.step,
        "weights": loaded.weights,
        "seed": seed,
        **result,
        "protocol": protocol,
        "workdir": str(folder.parent),
        "code": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    save_png(folder / f"{stem}.png", picture)
    for suffix, png in (drawings or {}).items():
        save_bytes(folder / f"{stem}-{suffix}.png", png)
    write_atomic(folder / f"{stem}.json", json.dumps(record, indent=2))
    return record
