"""Reference statistics of a dataset in an .npz file: this project's and the ADM evaluator's.

    mu, sigma, mu_s, sigma_s        Inception's pool and spatial features, as ADM names them
    mu_<set>, sigma_<set>           dinov2, i3d, pixels_8x8
    pool                            up to 10,000 rows for precision and recall
    num_images, protocol            the number of images; networks, resize and data as JSON

ADM's files have neither `pool` nor `protocol`, but images `arr_0` [N, H, W, 3].
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from ul.core import files, npz
from ul.core.errors import ConfigError, DataError
from ul.core.files import numpy_reason, sha256
from ul.metrics import frechet
from ul.metrics.extractors import FeatureNetwork
from ul.metrics.features import pixels
from ul.metrics.streaming import FEATURE_SOURCES, FeatureStatistics, Reference

SCHEMA_VERSION = 1
# Relative; other projects compute and store covariances in float32.
COVARIANCE_TOLERANCE = 1e-4
SUFFIXES = {"pool": "", "spatial": "_s"}
# The errors that numpy raises for files that are missing, damaged or of another format.


def array_names(need: str) -> tuple[str, str]:
    """Return the names in the file of the mean and covariance of one set of features."""
    suffix = SUFFIXES.get(need, f"_{need}")
    return f"mu{suffix}", f"sigma{suffix}"


def to_arrays(
    statistics: FeatureStatistics, protocol: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the arrays of a complete reference file."""
    arrays: dict[str, np.ndarray] = {}
    for need in statistics.features:
        if need == "pool_rows":
            arrays["pool"] = statistics.rows().astype(np.float32)
        else:
            arrays |= dict(
                zip(array_names(need), statistics.gaussian(need), strict=True)
            )
    arrays["num_images"] = np.asarray(statistics.count, np.int64)
    arrays["protocol"] = np.asarray(json.dumps(protocol, sort_keys=True))
    return arrays


def write(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file under a temporary name and rename it once it is complete.

    Raises:
      StorageError: the file cannot be written.
    """
    part = path.parent / f".{path.name}.part"

    def replace():
        with part.open("wb") as f:
            np.savez(f, **arrays)  # type: ignore[arg-type]
        part.replace(path)

    files.write(replace, path)


def read_protocol(path: epath.Path) -> dict[str, Any]:
    """Read the protocol of a reference file that this project wrote.

    Raises:
      DataError: the file cannot be read, or has no protocol.
    """
    try:
        with npz.opened(path) as data:
            return json.loads(str(data["protocol"]))
    except npz.UNREADABLE as e:
        raise DataError(
            f"{path} must be a reference file with a protocol, but it cannot be read as "
            f"one: {numpy_reason(e)}"
        ) from e


def read(
    path: str, shape: tuple[int, ...], features: Callable[[np.ndarray], np.ndarray]
) -> Reference:
    """Read a reference for images of `shape`.

    `features` maps uint8 images [N, H, W, 3] to rows of pool features. It is called for
    the images of ADM's files, if precision or recall is measured.

    Raises:
      DataError: the file cannot be read, is damaged, or has no statistics.
      ConfigError: the reference was computed from images of another shape.
    """
    try:
        file = epath.Path(path)
        digest = sha256(file)
        with npz.opened(file) as data:
            gaussians = {
                need: _read_gaussian(path, data, *array_names(need))
                for need in FEATURE_SOURCES
                if set(array_names(need)) <= set(data)
            }
            protocol = json.loads(str(data["protocol"])) if "protocol" in data else None
            num_images = int(data["num_images"]) if "num_images" in data else None
            pool = data["pool"] if "pool" in data else None
            names = set(data)
    except npz.UNREADABLE as e:
        raise DataError(
            f"--reference {path} cannot be read as an .npz file: {numpy_reason(e)}"
        ) from e
    if not gaussians:
        raise DataError(
            f"--reference {path} must contain the statistics mu and sigma; "
            f"it contains {sorted(names)}."
        )
    if protocol is not None and tuple(protocol["image_shape"]) != shape:
        raise ConfigError(
            f"--reference {path} must be computed from images of shape {list(shape)}; its "
            f"images have the shape {list(protocol['image_shape'])}. Compute a reference of "
            "the run's data."
        )

    @functools.cache
    def rows() -> np.ndarray:
        return features(_read_images(path)) if pool is None else pool

    record = {
        "file": path,
        "sha256": digest,
        "num_images": num_images,
        "protocol": protocol or "not stated by the file (no `protocol`, as in ADM's)",
    }
    has_rows = pool is not None or "arr_0" in names
    return Reference(gaussians, rows if has_rows else None, record)


def _read_gaussian(path: str, data, mu: str, sigma: str) -> frechet.Gaussian:
    where = f"--reference {path}: {mu} and {sigma}"
    mean, covariance = data[mu], data[sigma]
    if not all(np.issubdtype(a.dtype, np.floating) for a in (mean, covariance)):
        raise DataError(
            f"{where} must be real floating-point numbers; their types are {mean.dtype} and "
            f"{covariance.dtype}. Compute the reference again."
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{where} must be a mean [d] and a covariance [d, d]; their shapes are "
            f"{mean.shape} and {covariance.shape}."
        )
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        raise DataError(f"{where} must be finite, but they contain NaN or infinity.")
    asymmetry = np.abs(covariance - covariance.T).max(initial=0.0)
    if asymmetry > COVARIANCE_TOLERANCE * np.abs(covariance).max(initial=0.0):
        raise DataError(
            f"--reference {path}: {sigma} must be symmetric, as a covariance is; the largest "
            f"difference to its transpose is {asymmetry:.3g}. Compute the reference again."
        )
    values = np.linalg.eigvalsh(covariance)
    if len(values) and values[0] < -COVARIANCE_TOLERANCE * np.abs(values).max():
        raise DataError(
            f"--reference {path}: {sigma} must be a covariance, whose eigenvalues are 0 or "
            f"more; the smallest is {values[0]:.3g}. Compute the reference again."
        )
    return mean, covariance


def _read_images(path: str) -> np.ndarray:
    try:
        with npz.opened(path) as data:
            image = data["arr_0"]
    except npz.UNREADABLE as e:
        raise DataError(
            f"--reference {path}: arr_0 cannot be read: {numpy_reason(e)}"
        ) from e
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3:
        raise DataError(
            f"--reference {path}: arr_0 must be images, uint8 [N, H, W, 3]; "
            f"it is {image.dtype} {list(image.shape)}."
        )
    return image


def check_networks(
    reference: Reference, needs: tuple[str, ...], networks: Mapping[str, FeatureNetwork]
) -> None:
    """Check that a reference was computed with the feature networks of this evaluation.

    Raises:
      ConfigError: the weights or the resizing differ.
    """
    protocol = reference.protocol["protocol"]
    if isinstance(protocol, str):
        return
    for name in sorted({FEATURE_SOURCES[need][0] for need in needs} & networks.keys()):
        recorded, current = protocol["networks"].get(name), networks[name].protocol()
        for key in current if recorded is not None else ():
            if recorded[key] != current[key]:
                raise ConfigError(
                    f"--reference {reference.protocol['file']} must be computed with the "
                    f"networks of this evaluation, but {name} {key} is {recorded[key]} in "
                    f"the file and {current[key]} now. Compute the reference again."
                )


def check_widths(
    reference: Reference, shape: tuple[int, ...], networks: Mapping[str, FeatureNetwork]
) -> None:
    """Check that the statistics are of as many features as the networks compute.

    Raises:
      DataError: they are not, so they are of other features.
    """
    for need, (mean, _) in reference.gaussians.items():
        network, part = FEATURE_SOURCES[need]
        if need == pixels.NAME:
            width = pixels.features(np.zeros((1, *shape), np.uint8)).shape[-1]
        elif network in networks:
            width = networks[network].widths(shape)[part]
        else:
            continue
        if len(mean) != width:
            raise DataError(
                f"--reference {reference.protocol['file']}: {array_names(need)[0]} must "
                f"have {width} values, the number of {need} features; it has {len(mean)}. "
                "Pass statistics of the same network."
            )
