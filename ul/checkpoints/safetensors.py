"""Exported models: the weights of a run as safetensors, one file per network.

    <network>.safetensors  parameters by path, `a.b.kernel`, in Flax's layouts
    <network>.json         what the network is, for readers other than this project
    config.json            the run's record and the SHA-256 of every file; written last

Readers treat an exported model as a workdir with one step; the `export` section of its
config.json tells the two apart. Neither Orbax nor the original workdir is needed.
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

from ul.checkpoints.digests import leaf_differences, shape_and_dtype
from ul.checkpoints.workdir import load_run_record
from ul.core import files, sealed_json, trees
from ul.core.errors import ConfigError, DataError
from ul.core.files import write_atomic

FORMAT_VERSION = 1
LAYOUT = "Flax: dense kernels [in, out], convolutions [H, W, in, out]"


def read_export_record(workdir) -> dict[str, Any] | None:
    """Return the `export` section of config.json: step, weights, source, files.

    Return None for a directory in which a run was trained.

    Raises:
      ConfigError: the directory is neither, or holds an export of another format.
    """
    record = load_run_record(workdir).get("export")
    if record is not None and record["format"] != FORMAT_VERSION:
        raise ConfigError(
            f"The exported model in {workdir} must have format {FORMAT_VERSION}; got "
            f"{record['format']}. Export the run again, or use the version that wrote it."
        )
    return record


def serialize_networks(
    networks: Mapping[str, Any], descriptions: Mapping[str, dict[str, Any]]
) -> dict[str, bytes]:
    """Return the content of both files of every network, by file name.

    `networks`: parameters by network. `descriptions`: further keys of each JSON file.
    """
    contents = {}
    for name, params in networks.items():
        tensors = {
            # safetensors writes the memory of a transposed view without transposing it.
            path.replace("/", "."): np.ascontiguousarray(jax.device_get(leaf))
            for path, leaf in trees.leaves_by_path(params).items()
        }
        weights = safetensors.numpy.save(tensors)
        description = {
            "format": FORMAT_VERSION,
            "network": name,
            **descriptions[name],
            "parameters": trees.num_elements(params),
            "layout": LAYOUT,
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        contents[f"{name}.safetensors"] = weights
        contents[f"{name}.json"] = json.dumps(description, indent=2).encode()
    return contents


def write_export(
    directory: epath.Path,
    run_record: dict,
    export: dict,
    contents: Mapping[str, bytes],
) -> None:
    """Write the files of an export and, last, config.json.

    `run_record`: config.json of the run. `export`: step, weights and source. Writing the
    same export again, for example after a kill, gives the same files.

    Raises:
      ConfigError: a file exists with other content; nothing is written.
      StorageError: a file cannot be written.
    """
    digests = {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}
    section = {"format": FORMAT_VERSION, **export, "files": digests}
    record = json.dumps(sealed_json.seal(run_record | {"export": section}), indent=2)
    written = {**contents, "config.json": record.encode()}
    files.make_directory(directory)
    for name, content in written.items():
        path = directory / name
        if files.exists(path) and files.read_bytes(path) != content:
            raise ConfigError(
                f"{path} must be new or have the same content; it has other content. "
                "Choose another --out or move the file."
            )
    for name, content in written.items():
        write_atomic(directory / name, content)


def read_networks(workdir, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parameters of the named networks of an export and check their digests.

    `abstract`: shapes, dtypes and shardings by network, for any mesh.

    Raises:
      DataError: a file is missing or damaged, or its shapes differ.
    """
    record = read_export_record(workdir)
    assert record is not None
    for name in abstract:
        _read_verified(epath.Path(workdir) / f"{name}.json", record["files"])
    return {
        name: _read_network(
            epath.Path(workdir) / f"{name}.safetensors", record["files"], leaves
        )
        for name, leaves in abstract.items()
    }


def _read_verified(path: epath.Path, digests: Mapping[str, str]) -> bytes:
    """Return the content of a file of an export.

    Raises:
      DataError: it is missing, or its digest is another one.
    """
    try:
        content = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise DataError(
            f"{path} cannot be read: {e.strerror}. Export the run again."
        ) from e
    if hashlib.sha256(content).hexdigest() != digests.get(path.name):
        raise DataError(
            f"{path} is damaged or belongs to another export: its SHA-256 must be the one "
            "in config.json. Export the run again."
        )
    return content


def _read_network(path: epath.Path, digests: Mapping[str, str], abstract) -> Any:
    content = _read_verified(path, digests)
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as e:
        raise DataError(f"{path} cannot be read as safetensors: {e}") from e
    leaves = {
        p.replace("/", "."): leaf for p, leaf in trees.leaves_by_path(abstract).items()
    }
    differences = leaf_differences(
        {name: shape_and_dtype(tensor) for name, tensor in tensors.items()},
        {name: shape_and_dtype(leaf) for name, leaf in leaves.items()},
    )
    if differences:
        raise DataError(
            f"{path} must hold the network of the config, but {len(differences)} tensors "
            f"differ: {differences[0]}. Export the run again."
        )

    def to_device(name: str, leaf):
        tensor = tensors[name.replace("/", ".")]
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: tensor[index]
        )

    return trees.map_with_path(to_device, abstract)
