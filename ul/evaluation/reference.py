"""Reference statistics of a data set, once: read in parts, resumed after a kill."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ul.config import RunConfig
from ul.core import mesh as meshes
from ul.core.errors import ConfigError, StorageError
from ul.data import datasets
from ul.evaluation.context import data_digest, examples_of, kept_rows, needs_of
from ul.evaluation.request import known, wanted
from ul.metrics import references, streaming
from ul.metrics.streaming import METRICS, Extractor, Provider, Statistics

log = logging.getLogger("ul")

REFERENCED = ("frechet", "fid", "sfid", "precision", "recall", "fd_dinov2", "fvd")
DEFAULT = ("fid", "sfid", "precision", "recall", "fd_dinov2")
SPLITS = ("train", "eval")


def make_reference(
    config: RunConfig,
    out: str,
    *,
    split: str,
    metrics: Sequence[str] | None,
    networks: Provider,
    every_seconds: float = 60.0,
    check: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Statistics of a whole split as `out` (.npz, see evals/references); its protocol.

    What was seen so far is kept beside it every `every_seconds` seconds, so the same
    command goes on after a kill; `out` is there once it is whole. `check` is told the
    number of images seen after each part.

    Raises:
      ConfigError: unknown metrics or split, weights that are missing, a file or a
        beginning of another protocol in its place.
      DataError: damaged weights or data.
      StorageError: it cannot be written.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"--split {split!r} is unknown; known are {', '.join(SPLITS)}"
        )
    path = epath.Path(out)
    if path.suffix != ".npz":
        raise ConfigError(f"--make_reference {out} must end in .npz")
    needs = _needs(metrics, config.data.image_shape, networks)
    examples = examples_of(config, split)
    extract = Extractor(needs, networks, meshes.make())
    protocol = _protocol(config, split, examples, extract)
    if path.exists():
        _same(path, references.read_protocol(path), protocol)
        print(f"{out} is complete already")
        return protocol
    begun = path.parent / f".{path.name}.begun.npz"
    seen = Statistics(needs, kept_rows(len(examples)))
    _resume(begun, seen, protocol)
    saved, rest = time.monotonic(), np.arange(seen.count, len(examples))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in datasets.parts(config, examples, rest, f"{split} images"):
            seen.add(extract(part["image"]))
            if time.monotonic() - saved >= every_seconds:
                _keep(begun, seen, protocol)
                saved = time.monotonic()
            check(seen.count)
        references.write(path, references.to_arrays(seen, protocol))
        begun.unlink(missing_ok=True)
    except OSError as e:
        raise StorageError(f"{out} cannot be written: {e}") from e
    return protocol


def _protocol(config: RunConfig, split: str, examples, extract: Extractor) -> dict:
    """What the numbers depend on, as JSON has it."""
    stated = {
        "schema": references.SCHEMA_VERSION,
        "split": split,
        "image_shape": config.data.image_shape,
        "num_images": len(examples),
        "augmentation": "none",
        "source": config.data.source,
        "data_digest": data_digest(examples),
        "needs": extract.needs,
        "networks": {name: n.protocol() for name, n in extract.networks.items()},
    }
    return json.loads(json.dumps(stated))


def _needs(
    metrics: Sequence[str] | None, shape: tuple[int, ...], networks: Provider
) -> tuple[str, ...]:
    chosen = DEFAULT if metrics is None else tuple(metrics)
    known(chosen, REFERENCED)
    for name in wanted(chosen, REFERENCED, shape):
        reason = streaming.obstacle(name, shape, METRICS[name].least, networks)
        if reason is not None:
            raise ConfigError(f"no reference for {name}: {reason}")
    return needs_of(chosen)


def _same(path: epath.Path, there: dict, here: dict) -> None:
    """Raises ConfigError where a file is of another protocol."""
    differ = [key for key in here if there.get(key) != here[key]]
    if differ:
        key = differ[0]
        raise ConfigError(
            f"{path} is of another protocol ({key}: {there.get(key)} there, {here[key]} "
            "here); delete it or choose another name"
        )


def _keep(begun: epath.Path, seen: Statistics, protocol: dict) -> None:
    stated = {"protocol": np.asarray(json.dumps(protocol))}
    references.write(begun, seen.arrays() | stated)


def _resume(begun: epath.Path, seen: Statistics, protocol: dict) -> None:
    """Take up what an earlier run of the command had seen."""
    if not begun.exists():
        return
    _same(begun, references.read_protocol(begun), protocol)
    with np.load(begun, allow_pickle=False) as data:
        seen.restore(dict(data))
    log.info("resumed after %d of %d images", seen.count, protocol["num_images"])
