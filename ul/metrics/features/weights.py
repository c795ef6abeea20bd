"""Weights of the pretrained networks: safetensors files and a manifest of their digests.

`python -m ul convert` writes both. A network is a module of this package with `FILE`,
`shapes()` and `from_torch()`. Pickles are never read.
"""

import hashlib
import json
import types
from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from ul.core import files
from ul.core.errors import DataError
from ul.core.files import PICKLE_SUFFIXES, is_pickle, write_atomic

Params = Mapping[str, jax.Array | np.ndarray]

MANIFEST_FILE = "manifest.json"
_MAX_DIFFERENCES = 3  # an error message lists at most so many


class MissingWeights(DataError):
    """The network's file is missing; a metric that needs it can be skipped, with a note."""


class FeatureModule(Protocol):
    """The interface of a feature network's module."""

    __name__: str
    FILE: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the file."""

    def from_torch(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of the file from the state of a public file."""


def network_name(module: FeatureModule) -> str:
    """Return the name that `ul convert` has for the network of a module."""
    return module.__name__.rpartition(".")[2]


def _convert_command(weights_dir: epath.PathLike, network: str) -> str:
    return (
        f"python -m ul convert {network} --source <public file> "
        f"--weights_dir {weights_dir} --license <its license> --url <its address>"
    )


def _is_safetensors(content: bytes) -> bool:
    """Return whether the file begins with the length of a JSON object and that object."""
    length = int.from_bytes(content[:8], "little")
    return content[8:9] == b"{" and length <= len(content) - 8


def parse_safetensors(path: epath.Path, content: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file; `path` is for the error message.

    Raises:
      DataError: the content is damaged, or is not of this format.
    """
    if not _is_safetensors(content):
        kind = "a pickle, which is never read" if is_pickle(content) else "damaged"
        raise DataError(f"{path} must be a safetensors file; it is {kind}.")
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as e:
        raise DataError(f"{path} cannot be read as a safetensors file: {e}") from e


def check_arrays(
    source: epath.PathLike, arrays: Mapping[str, np.ndarray], module: FeatureModule
) -> None:
    """Check that arrays have the network's names and shapes, are float32 and finite.

    Raises:
      DataError: they differ; the message names `source` and the first few differences.
    """
    expected = module.shapes()
    differences = [f"lacks {name}" for name in expected if name not in arrays]
    differences += [
        f"has the unknown tensor {name}" for name in arrays if name not in expected
    ]
    for name in expected.keys() & arrays.keys():
        array = arrays[name]
        if array.shape != expected[name]:
            differences.append(
                f"has {name} of shape {array.shape}, not {expected[name]}"
            )
        elif array.dtype != np.float32:
            differences.append(f"has {name} of type {array.dtype}, not float32")
        elif not np.isfinite(array).all():
            differences.append(f"has {name} with values that are not finite")
    if differences:
        listed = "; ".join(sorted(differences)[:_MAX_DIFFERENCES])
        rest = len(differences) - _MAX_DIFFERENCES
        more = f"; and {rest} more" if rest > 0 else ""
        raise DataError(
            f"{source} must have the tensors of {network_name(module)}; it {listed}{more}."
        )


def read_manifest(weights_dir: epath.PathLike) -> dict[str, dict[str, str]]:
    """Return sha256, license and source of each converted file; empty without a manifest.

    Raises:
      DataError: the manifest is not one that `save` wrote.
    """
    path = epath.Path(weights_dir) / MANIFEST_FILE
    try:
        entries = json.loads(files.read_text(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
        for entry in entries.values()
    ):
        raise DataError(
            f"{path} must have a sha256 for every file, but some are missing. "
            "Convert the networks again with python -m ul convert."
        )
    return entries


def _read(weights_dir: epath.PathLike, network: str, file: str) -> bytes:
    path = epath.Path(weights_dir) / file
    command = _convert_command(weights_dir, network)
    for suffix in PICKLE_SUFFIXES:
        if not files.exists(path) and files.exists(pickle := path.with_suffix(suffix)):
            raise _pickle_error(pickle, command)
    try:
        content = files.read_bytes(path)
    except FileNotFoundError as e:
        raise MissingWeights(f"{path} is missing. Create it with: {command}") from e
    except NotADirectoryError as e:
        raise DataError(f"{path} cannot be read: {e}") from e
    if is_pickle(content):
        raise _pickle_error(path, command)
    return content


def _pickle_error(path: epath.Path, command: str) -> DataError:
    return DataError(
        f"{path} must be a safetensors file; it is a pickle, which is never read. "
        f"Convert it with: {command}"
    )


def read_companion(weights_dir: epath.PathLike, network: str, file: str) -> bytes:
    """Return the content of a file that `ul convert` wrote for the named network.

    Raises:
      MissingWeights: there is no such file.
      DataError: it is a pickle, is not in the manifest, or has another digest than there.
    """
    path, content = epath.Path(weights_dir) / file, _read(weights_dir, network, file)
    command = _convert_command(weights_dir, network)
    entry = read_manifest(weights_dir).get(file)
    if entry is None:
        manifest = epath.Path(weights_dir) / MANIFEST_FILE
        raise DataError(
            f"{path} must have an entry in {manifest}, but has none. "
            f"Create both with: {command}"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise DataError(
            f"{path} must have the SHA-256 of {MANIFEST_FILE}, {entry['sha256'][:12]}...; "
            f"it has {digest[:12]}...: the file was damaged or replaced. "
            f"Create it again with: {command}"
        )
    return content


def load(weights_dir: epath.PathLike, module: FeatureModule) -> dict[str, np.ndarray]:
    """Return the network's tensors, after checking them against the manifest.

    Raises:
      MissingWeights: there is no such file.
      DataError: it differs from the manifest (`read_companion`), is damaged, or does not
        fit the network.
    """
    path = epath.Path(weights_dir) / module.FILE
    content = read_companion(weights_dir, network_name(module), module.FILE)
    arrays = parse_safetensors(path, content)
    check_arrays(path, arrays, module)
    return arrays


def save(
    weights_dir: epath.PathLike,
    module: FeatureModule,
    arrays: dict[str, np.ndarray],
    *,
    license: str,
    source: str,
    companions: Mapping[str, bytes] = types.MappingProxyType({}),
) -> str:
    """Write the network's file, its companions and their manifest entries.

    Returns the SHA-256 of the network's file.

    Raises:
      DataError: the tensors do not fit the network.
      StorageError: a file cannot be written.
    """
    path = epath.Path(weights_dir) / module.FILE
    check_arrays(source, arrays, module)
    files.make_directory(path.parent)
    entries = read_manifest(weights_dir)
    # For a transposed view safetensors writes the memory in its own order, under the shape
    # of the view.
    tensors = safetensors.numpy.save(
        {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    )
    for file, content in {module.FILE: tensors, **companions}.items():
        write_atomic(path.parent / file, content)
        digest = hashlib.sha256(content).hexdigest()
        entries[file] = {"sha256": digest, "license": license, "source": source}
    # The manifest comes last: a file without an entry is refused.
    text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
    write_atomic(path.parent / MANIFEST_FILE, text)
    return entries[module.FILE]["sha256"]
