"""Reference statistics of a data set as an .npz file: ours, and the ADM evaluator's.

    mu, sigma, mu_s, sigma_s        Inception's pool and spatial features, as ADM names them
    mu_<set>, sigma_<set>           dinov2, i3d, pixels_8x8
    pool                            up to 10,000 rows for precision and recall
    num_images, protocol            how many, and JSON: networks, resize, data

ADM's files have neither `pool` nor `protocol`, but images `arr_0` [N, H, W, 3].
"""

import functools
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError
from ul.core.files import sha256
from ul.metrics import frechet
from ul.metrics.extractors import Network
from ul.metrics.streaming import SOURCES, Reference, Statistics

SCHEMA = 1
SUFFIXES = {"pool": "", "spatial": "_s"}
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


def keys(need: str) -> tuple[str, str]:
    """The names of a set's mean and covariance in the file."""
    suffix = SUFFIXES.get(need, f"_{need}")
    return f"mu{suffix}", f"sigma{suffix}"


def content(seen: Statistics, protocol: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a finished file."""
    found: dict[str, np.ndarray] = {}
    for need in seen.needs:
        if need == "pool_rows":
            found["pool"] = seen.rows().astype(np.float32)
        else:
            found |= dict(zip(keys(need), seen.gaussian(need), strict=True))
    found["num_images"] = np.asarray(seen.count, np.int64)
    found["protocol"] = np.asarray(json.dumps(protocol, sort_keys=True))
    return found


def write(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The whole file or none of it.

    Raises:
      OSError: the disk refuses.
    """
    part = path.parent / f".{path.name}.part"
    with part.open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def read_protocol(path: epath.Path) -> dict[str, Any]:
    """Of a file that this project wrote.

    Raises:
      DataError: it cannot be read, or has none.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return json.loads(str(data["protocol"]))
    except UNREADABLE as e:
        raise DataError(f"{path} is no reference file: {_line(e)}") from e


def _line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


def read(
    path: str, shape: tuple[int, ...], features: Callable[[np.ndarray], np.ndarray]
) -> Reference:
    """A reference for images of `shape`; `features` are what an ADM file's images are
    given for precision and recall: uint8 [N, H, W, 3] to pool rows.

    Raises:
      DataError: it cannot be read, is damaged, or holds no statistics.
      ConfigError: it was made from images of another shape.
    """
    try:
        file = epath.Path(path)
        digest = sha256(file)
        with np.load(file, allow_pickle=False) as data:
            gaussians = {
                need: _gaussian(path, data, *keys(need))
                for need in SOURCES
                if set(keys(need)) <= set(data)
            }
            stated = json.loads(str(data["protocol"])) if "protocol" in data else None
            count = int(data["num_images"]) if "num_images" in data else None
            pool = data["pool"] if "pool" in data else None
            held = set(data)
    except UNREADABLE as e:
        raise DataError(f"--reference {path} cannot be read: {_line(e)}") from e
    if not gaussians:
        raise DataError(f"--reference {path} has {sorted(held)}, but no mu and sigma")
    if stated is not None and tuple(stated["image_shape"]) != shape:
        raise ConfigError(
            f"--reference {path} is of another protocol: its images are "
            f"{stated['image_shape']}, the run's {list(shape)}; make one of this data"
        )

    @functools.cache
    def rows() -> np.ndarray:
        return features(_images(path)) if pool is None else pool

    protocol = {
        "file": path,
        "sha256": digest,
        "num_images": count,
        "protocol": stated or "not stated by the file (no `protocol`, as in ADM's)",
    }
    available = pool is not None or "arr_0" in held
    return Reference(gaussians, rows if available else None, protocol)


def _gaussian(path: str, data, mu: str, sigma: str) -> frechet.Gaussian:
    mean, covariance = data[mu].astype(np.float64), data[sigma].astype(np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"--reference {path}: {mu} {mean.shape} and {sigma} {covariance.shape} "
            "are no mean and covariance"
        )
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        raise DataError(f"--reference {path}: {mu} or {sigma} is not finite")
    return mean, covariance


def _images(path: str) -> np.ndarray:
    try:
        with np.load(epath.Path(path), allow_pickle=False) as data:
            image = data["arr_0"]
    except UNREADABLE as e:
        raise DataError(f"--reference {path}: arr_0 cannot be read: {_line(e)}") from e
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3:
        raise DataError(
            f"--reference {path}: arr_0 is {image.dtype}{list(image.shape)}, "
            "wanted are images uint8 [N, H, W, 3]"
        )
    return image


def check(
    reference: Reference, needs: tuple[str, ...], networks: Mapping[str, Network]
) -> None:
    """Raises ConfigError where other networks or another resize made the reference."""
    stated = reference.protocol["protocol"]
    if isinstance(stated, str):
        return
    for name in sorted({SOURCES[need][0] for need in needs} & networks.keys()):
        there, here = stated["networks"].get(name), networks[name].protocol()
        for key in here if there is not None else ():
            if there[key] != here[key]:
                raise ConfigError(
                    f"--reference {reference.protocol['file']} is of another protocol: "
                    f"{name} {key} {there[key]} there, {here[key]} here; make it anew"
                )
