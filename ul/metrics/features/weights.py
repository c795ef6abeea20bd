"""Weights of the pretrained networks: safetensors files and a manifest of their digests.

`python -m launch.convert` writes both. A network is a module of this package with `FILE`,
`shapes()` and `from_torch()`. Pickles are refused unread.
"""

import hashlib
import json
import types
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from ul.core.errors import DataError, StorageError
from ul.core.files import PICKLES, is_pickle, write_atomic

MANIFEST = "manifest.json"
_NAMED = 3  # of the differences from what is expected


class Missing(DataError):
    """The network's file is not there: what needs it can be left out, by name."""


class Network(Protocol):
    """What a module of a feature network offers."""

    __name__: str
    FILE: str

    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    def from_torch(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


def _command(weights_dir: Any, module: Network) -> str:
    name = module.__name__.rpartition(".")[2]
    return (
        f"python -m launch.convert {name} --source <public file> "
        f"--weights_dir {weights_dir} --licence <its licence> --url <its address>"
    )


def _is_safetensors(content: bytes) -> bool:
    """Whether the file begins with the length of a JSON object, and one."""
    length = int.from_bytes(content[:8], "little")
    return content[8:9] == b"{" and length <= len(content) - 8


def parse(path: epath.Path, content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
      DataError: it is no such file, or damaged.
    """
    if not _is_safetensors(content):
        kind = "a pickle, which is not read" if is_pickle(content) else "damaged"
        raise DataError(f"{path} is not a safetensors file but {kind}")
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e


def check(what: Any, arrays: Mapping[str, np.ndarray], module: Network) -> None:
    """Raises DataError where names, shapes or types are not the network's, or values are
    not finite; the first few are named."""
    expected = module.shapes()
    wrong = [f"lacks {k}" for k in expected if k not in arrays]
    wrong += [f"has {k}, which is unknown" for k in arrays if k not in expected]
    for name in expected.keys() & arrays.keys():
        found = arrays[name]
        if found.shape != expected[name]:
            wrong.append(f"{name} is {found.shape}, not {expected[name]}")
        elif found.dtype != np.float32:
            wrong.append(f"{name} is {found.dtype}, not float32")
        elif not np.isfinite(found).all():
            wrong.append(f"{name} is not finite")
    if wrong:
        few = "; ".join(sorted(wrong)[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise DataError(f"{what} does not fit {module.__name__}: {few}{more}")


def manifest(weights_dir: epath.PathLike) -> dict[str, dict[str, str]]:
    """Of each converted file: sha256, licence, source. Empty without a manifest.

    Raises:
      DataError: it is not what `save` wrote.
    """
    path = epath.Path(weights_dir) / MANIFEST
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e
    if not isinstance(entries, dict) or not all(
        isinstance(e, dict) and isinstance(e.get("sha256"), str)
        for e in entries.values()
    ):
        raise DataError(f"{path} does not give every file a sha256; convert them again")
    return entries


def _read(weights_dir: epath.PathLike, module: Network, file: str) -> bytes:
    path = epath.Path(weights_dir) / file
    for suffix in PICKLES:
        if not path.exists() and (pickle := path.with_suffix(suffix)).exists():
            command = _command(weights_dir, module)
            raise DataError(f"{pickle} is a pickle and not read; convert it: {command}")
    try:
        return path.read_bytes()
    except FileNotFoundError as e:
        command = _command(weights_dir, module)
        raise Missing(f"{path} is missing; make it with {command}") from e
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e}") from e


def companion(weights_dir: epath.PathLike, module: Network, file: str) -> bytes:
    """A file of the network, as on the day of its conversion.

    Raises:
      Missing: there is no such file.
      DataError: it is a pickle, is not in the manifest, or has another digest than there.
    """
    path, content = epath.Path(weights_dir) / file, _read(weights_dir, module, file)
    command = _command(weights_dir, module)
    if is_pickle(content):
        raise DataError(f"{path} is a pickle and not read; convert it: {command}")
    entry = manifest(weights_dir).get(file)
    if entry is None:
        where = epath.Path(weights_dir) / MANIFEST
        raise DataError(f"{path} is not in {where}; make both with {command}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise DataError(
            f"{path} has SHA-256 {digest[:12]}..., not {entry['sha256'][:12]}... as in "
            f"{MANIFEST}: it was damaged or exchanged; make it again with {command}"
        )
    return content


def load(weights_dir: epath.PathLike, module: Network) -> dict[str, np.ndarray]:
    """The network's tensors, as on the day of their conversion.

    Raises:
      Missing: there is no such file.
      DataError: it is not as in the manifest (`companion`), is damaged, or does not fit
        the network.
    """
    path = epath.Path(weights_dir) / module.FILE
    arrays = parse(path, companion(weights_dir, module, module.FILE))
    check(path, arrays, module)
    return arrays


def save(
    weights_dir: epath.PathLike,
    module: Network,
    arrays: dict[str, np.ndarray],
    *,
    licence: str,
    source: str,
    companions: Mapping[str, bytes] = types.MappingProxyType({}),
) -> str:
    """Writes the network's file, others that it needs beside it, and their entries in the
    manifest; the file's SHA-256.

    Raises:
      DataError: the tensors do not fit the network.
      StorageError: a file cannot be written.
    """
    path = epath.Path(weights_dir) / module.FILE
    check(source, arrays, module)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{path.parent} cannot be made: {e}") from e
    entries = manifest(weights_dir)
    # safetensors writes a transposed view's memory as it lies, under the view's shape.
    content = safetensors.numpy.save(
        {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    )
    files = {module.FILE: content} | dict(companions)
    for file, content in files.items():
        write_atomic(path.parent / file, content)
        digest = hashlib.sha256(content).hexdigest()
        entries[file] = {"sha256": digest, "licence": licence, "source": source}
    # Last: without its entry a file is refused.
    text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
    write_atomic(path.parent / MANIFEST, text)
    return entries[module.FILE]["sha256"]
