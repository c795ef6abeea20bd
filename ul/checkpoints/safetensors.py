"""A run's weights as safetensors: one file a network, read without Orbax.

    <network>.safetensors  parameters by path, `a.b.kernel`, in Flax's layouts
    <network>.json         what the network is and what for: for readers other than us
    config.json            the run's record, and of every file its SHA-256; written last

To a reader it is a workdir with one step: config.json tells which of the two.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from ul.checkpoints.store import describe, differences
from ul.checkpoints.workdir import load_config
from ul.core import trees
from ul.core.errors import ConfigError, DataError, StorageError
from ul.core.files import write_atomic

FORMAT = 1
LAYOUT = "Flax: dense kernels [in, out], convolutions [H, W, in, out]"


def record(where) -> dict[str, Any] | None:
    """What config.json says of the export there: step, weights, source, files.

    None of a directory in which a run was trained.

    Raises:
      ConfigError: neither, or an export of another version.
    """
    found = load_config(where).get("export")
    if found is not None and found["format"] != FORMAT:
        raise ConfigError(
            f"{where} was exported in format {found['format']}, and this code reads "
            f"{FORMAT}; export it again, or use the version that wrote it"
        )
    return found


def files(
    networks: Mapping[str, Any], about: Mapping[str, dict[str, Any]]
) -> dict[str, bytes]:
    """Of every network the two files, by name; `about` is what its JSON says besides."""
    made = {}
    for name, params in networks.items():
        tensors = {
            # safetensors writes a transposed view's memory as it lies.
            path.replace("/", "."): np.ascontiguousarray(jax.device_get(leaf))
            for path, leaf in trees.paths(params).items()
        }
        content = safetensors.numpy.save(tensors)
        says = {
            "format": FORMAT,
            "network": name,
            **about[name],
            "parameters": trees.size(params),
            "layout": LAYOUT,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        made[f"{name}.safetensors"] = content
        made[f"{name}.json"] = json.dumps(says, indent=2).encode()
    return made


def write(where: epath.Path, run: dict, export: dict, made: dict[str, bytes]) -> None:
    """The files and, last, config.json: what `run` remembers and what was exported.

    Done again after a kill, or over the same, it ends the same.

    Raises:
      ConfigError: some file there has another content; nothing is written.
      StorageError: the disk refuses.
    """
    digests = {name: hashlib.sha256(c).hexdigest() for name, c in made.items()}
    whole = run | {"export": {"format": FORMAT, **export, "files": digests}}
    every = made | {"config.json": json.dumps(whole, indent=2).encode()}
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, content in every.items():
            path = where / name
            if path.exists() and path.read_bytes() != content:
                raise ConfigError(
                    f"{path} holds something else; choose another --out, or move it away"
                )
    except OSError as e:
        raise StorageError(f"{where} cannot be written: {e}") from e
    for name, content in every.items():
        write_atomic(where / name, content)


def read(where, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The named networks' parameters, their files' digests checked.

    `abstract`: shapes, dtypes and shardings of each, on any mesh.

    Raises:
      DataError: a file is missing, damaged, or of other shapes.
    """
    known = record(where)
    assert known is not None
    return {
        name: _network(
            epath.Path(where) / f"{name}.safetensors", known["files"], wanted
        )
        for name, wanted in abstract.items()
    }


def _network(path: epath.Path, digests: Mapping[str, str], wanted) -> Any:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}; export it again") from e
    if hashlib.sha256(content).hexdigest() != digests.get(path.name):
        raise DataError(
            f"{path} is damaged or of another export: its SHA-256 is not that in "
            "config.json; export it again"
        )
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as e:
        raise DataError(f"{path} cannot be read as safetensors: {e}") from e
    names = {path.replace("/", "."): leaf for path, leaf in trees.paths(wanted).items()}
    differs = differences(
        {name: describe(tensor) for name, tensor in tensors.items()},
        {name: describe(leaf) for name, leaf in names.items()},
    )
    if differs:
        raise DataError(
            f"{path} is of another network, {len(differs)} tensors differ: {differs[0]}"
        )

    def placed(name: str, leaf):
        tensor = tensors[name.replace("/", ".")]
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: tensor[index]
        )

    return trees.map_with_path(placed, wanted)
