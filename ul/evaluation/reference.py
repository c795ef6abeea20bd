"""Reference statistics of a dataset, computed once; a killed command resumes."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ul.core import files, npz
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.data.datasets import SPLITS, Datasets
from ul.evaluation.context import data_digest, kept_rows
from ul.evaluation.request import check_metrics, select_metrics
from ul.metrics import references, registry
from ul.metrics.metric import required_features
from ul.metrics.streaming import (
    FeatureExtractor,
    FeatureNetworkProvider,
    FeatureStatistics,
)

log = logging.getLogger("ul")


def make_reference(
    datasets: Datasets,
    out: str,
    *,
    split: str,
    metrics: Sequence[str] | None,
    networks: FeatureNetworkProvider,
    every_seconds: float = 60.0,
    check: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Write the statistics of a whole split to `out`, an .npz; return their protocol.

    The format is that of ul/metrics/references.py. metrics: those that will be compared
    with it; None: all that need a pretrained network. Unfinished statistics are kept beside
    `out` every `every_seconds` seconds, so that the same command resumes after a kill;
    `out` appears when it is complete. `check` is called with the number of images so far.

    Raises:
      ConfigError: unknown metrics or an unknown split, missing weights, or a file of
        another protocol in its place.
      DataError: damaged weights or data.
      StorageError: it cannot be written.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split must be one of {', '.join(SPLITS)}; got {split!r}.")
    path = epath.Path(out)
    if path.suffix != ".npz":
        raise ConfigError(f"--make_reference must end in .npz; got {out!r}.")
    features = _features(metrics, datasets.data.image_shape, networks)
    examples = datasets.ordered(split)
    extract = FeatureExtractor(features, networks, meshes.make())
    protocol = _protocol(datasets, split, examples, extract)
    if files.exists(path):
        _check_same(path, references.read_protocol(path), protocol)
        print(f"{out} is already complete; nothing to do")
        return protocol
    unfinished = path.parent / f".{path.name}.begun.npz"
    statistics = FeatureStatistics(features, kept_rows(len(examples)))
    _resume(unfinished, statistics, protocol)
    saved, rest = time.monotonic(), np.arange(statistics.count, len(examples))
    try:
        files.make_directory(path.parent)
        for part in datasets.chunks(examples, rest, f"{split} images"):
            statistics.add(extract(part["image"]))
            if time.monotonic() - saved >= every_seconds:
                _save(unfinished, statistics, protocol)
                saved = time.monotonic()
            check(statistics.count)
        references.write(path, references.to_arrays(statistics, protocol))
        files.remove(unfinished)
    except OSError as e:
        raise files.write_error(out, e) from e
    return protocol


def _protocol(
    datasets: Datasets, split: str, examples, extract: FeatureExtractor
) -> dict:
    """Return everything that the statistics depend on, as JSON reads it back."""
    protocol = {
        "schema": references.SCHEMA_VERSION,
        "split": split,
        "image_shape": datasets.data.image_shape,
        "num_images": len(examples),
        "augmentation": "none",
        "source": datasets.data.source,
        "data_digest": data_digest(examples),
        "features": extract.features,
        "networks": {name: n.protocol() for name, n in extract.networks.items()},
    }
    return json.loads(json.dumps(protocol))


def _features(
    requested: Sequence[str] | None,
    shape: tuple[int, ...],
    networks: FeatureNetworkProvider,
) -> tuple[str, ...]:
    candidates = registry.reference_metrics()
    if requested is None:
        candidates = tuple(m for m in candidates if m.feature_network is not None)
    else:
        check_metrics(requested, [m.name for m in candidates])
    selected = select_metrics(requested, candidates, shape)
    for metric in selected:
        reason = metric.obstacle(shape, metric.min_count, networks)
        if reason is not None:
            raise ConfigError(
                f"--metrics {metric.name} cannot be computed for a reference: {reason}"
            )
    return required_features(selected)


def _check_same(path: epath.Path, stored: dict, protocol: dict) -> None:
    """Raise ConfigError if a file has another protocol."""
    changed = [key for key in protocol if stored.get(key) != protocol[key]]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"The reference {path} must have the requested protocol; its {key} is "
            f"{stored.get(key)} instead of {protocol[key]}. Delete it or pass another "
            "--make_reference."
        )


def _save(
    unfinished: epath.Path, statistics: FeatureStatistics, protocol: dict
) -> None:
    stated = {"protocol": np.asarray(json.dumps(protocol))}
    references.write(unfinished, statistics.to_arrays() | stated)


def _resume(
    unfinished: epath.Path, statistics: FeatureStatistics, protocol: dict
) -> None:
    """Restore the unfinished statistics of an earlier run of the command."""
    if not files.exists(unfinished):
        return
    _check_same(unfinished, references.read_protocol(unfinished), protocol)
    with npz.opened(unfinished) as data:
        statistics.restore(dict(data))
    total = protocol["num_images"]
    log.info("Resumed after %d of %d images", statistics.count, total)
