"""Import a Stable-Diffusion-style KL autoencoder and write it as a stage-1 workdir.

The weights are read from safetensors files with the tensor names of AutoencoderKL in the
diffusers package, current or older, or of the original latent diffusion code (CompVis). The
file may hold the autoencoder alone or a whole model.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath

from ul.checkpoints import workdir
from ul.checkpoints.store import Checkpoints
from ul.core import files, trees
from ul.core import mesh as meshes
from ul.core.errors import ConfigError, DataError
from ul.core.files import PICKLE_SUFFIXES, is_pickle, sha256
from ul.stages import registry
from ul.stages.external import ExternalConfig
from ul.train import state

# The prefix of the autoencoder's tensors in the file of a whole model.
PREFIX = "first_stage_model."
# Patterns that rename tensors of CompVis and of older versions as the current AutoencoderKL
# does, applied in this order.
RENAMES = (
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"(\.attentions\.0)\.(?:q|query)\.", r"\1.to_q."),
    (r"(\.attentions\.0)\.(?:k|key)\.", r"\1.to_k."),
    (r"(\.attentions\.0)\.(?:v|value)\.", r"\1.to_v."),
    (r"(\.attentions\.0)\.(?:proj_out|proj_attn)\.", r"\1.to_out.0."),
)
# Keys of AutoencoderKL's config.json: the name in `config.networks` and the default.
SIZES: dict[str, tuple[str, Any]] = {
    "block_out_channels": ("channels", (64,)),
    "layers_per_block": ("blocks", 1),
    "latent_channels": ("latent_channels", 4),
    "norm_num_groups": ("groups", 32),
    "mid_block_add_attention": ("attention", True),
    "use_quant_conv": ("quant_conv", True),
    "use_post_quant_conv": ("post_quant_conv", True),
}
# The values of config.json that the networks in models/kl_autoencoder.py support; the first
# one is the default.
SUPPORTED_VALUES: dict[str, tuple] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
}
SUPPORTED_BLOCKS = {
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
}


def apply_vae_config(parsed: ExternalConfig, path: str) -> ExternalConfig:
    """Return the config with the sizes, scale and shift of a diffusers config.json.

    Raises:
      DataError: the file cannot be read or describes networks that are not supported.
      ConfigError: its images have other channels, or a value has the wrong type.
    """
    try:
        values = dict(json.loads(files.read_text(epath.Path(path))))
    except (OSError, TypeError, ValueError) as e:
        raise DataError(f"{path} cannot be read as a config.json: {e}") from e
    for key, supported in SUPPORTED_VALUES.items():
        if values.get(key, supported[0]) not in supported:
            raise DataError(
                f"{path}: {key} must be {supported[0]!r}, the only supported value; got "
                f"{values[key]!r}."
            )
    for key, block in SUPPORTED_BLOCKS.items():
        others = set(map(str, values.get(key) or ())) - {block}
        if others:
            raise DataError(
                f"{path}: {key} must have only {block!r}, the only supported type; got "
                f"{sorted(others)}."
            )
    channels = parsed.data.image_shape[2]
    for key in ("in_channels", "out_channels"):
        if values.get(key, 3) != channels:
            raise ConfigError(
                f"{path}: {key} must be {channels}, the channels of data.image_shape; got "
                f"{values.get(key, 3)}."
            )
    networks = {
        name: values.get(key, default) for key, (name, default) in SIZES.items()
    }
    settings = dataclasses.asdict(parsed) | {
        "networks": networks,
        "scale": values.get("scaling_factor", 0.18215),
        "shift": values.get("shift_factor") or 0.0,
    }
    return registry.parse(registry.to_dict(settings), ExternalConfig)


def read_tensors(path: str) -> dict[str, np.ndarray]:
    """Return the autoencoder's tensors of a safetensors file in float32, by their names.

    Raises:
      DataError: the file is missing or damaged, is a pickle, or has values that are not
        finite floating-point numbers.
    """

    def head() -> bytes:
        with open(path, "rb") as file:
            return file.read(9)

    try:
        start = files.read(head, path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise DataError(f"{path} cannot be read: {e.strerror}") from e
    if is_pickle(start) or path.endswith(PICKLE_SUFFIXES):
        raise DataError(
            f"{path} must be a safetensors file; it is a pickle, which can run code when it "
            "is loaded. Convert it to safetensors."
        )
    try:
        with safetensors.safe_open(path, "np") as file:
            names = list(file.keys())
            own = [name for name in names if name.startswith(PREFIX)]
            tensors = {name: file.get_tensor(name) for name in own or names}
    except (safetensors.SafetensorError, OSError, TypeError) as e:
        raise DataError(f"{path} cannot be read as safetensors: {e}") from e
    for name, tensor in tensors.items():
        if tensor.dtype.kind in "biu":
            raise DataError(
                f"{path}: all tensors must be of a floating-point type; {name} is "
                f"{tensor.dtype}. Pass weights that are not quantized."
            )
        if not np.isfinite(tensor.astype(np.float32)).all():
            raise DataError(
                f"{path}: all tensors must have finite values; {name} contains NaN or "
                "infinity. Download the file again."
            )
    return {
        name.removeprefix(PREFIX): tensor.astype(np.float32)
        for name, tensor in tensors.items()
    }


def convert_to_params(tensors: Mapping[str, np.ndarray], shapes, levels: int) -> Any:
    """Return parameters of the given `shapes` with the values of the tensors.

    Every tensor must be used and every parameter filled. `levels` is the number of
    resolutions of the networks.

    Raises:
      DataError: tensors are missing, left over or of another shape; the message names the
        first ones.
    """
    renamed: dict[str, np.ndarray] = {}
    problems = []
    for name, tensor in tensors.items():
        new_name = _current_name(name, levels)
        if new_name in renamed:
            problems.append(f"{name} is there twice")
        renamed[new_name] = tensor
    leaves = {
        _tensor_name(path): leaf for path, leaf in trees.leaves_by_path(shapes).items()
    }
    problems += [f"{name} is missing" for name in leaves if name not in renamed]
    problems += [f"{name} is not known" for name in renamed if name not in leaves]
    values = {
        name: _to_flax_layout(renamed[name], leaf)
        for name, leaf in leaves.items()
        if name in renamed
    }
    problems += [
        f"{name} has shape {list(renamed[name].shape)}, not "
        f"{_torch_shape(leaves[name].shape)}"
        for name, value in values.items()
        if value.shape != leaves[name].shape
    ]
    if problems:
        raise DataError(
            f"The weights must fit the networks; {len(problems)} tensors do not: "
            f"{'; '.join(problems[:3])}. Pass the config.json of these weights as "
            "--vae_config, or change --config.networks."
        )
    return trees.map_with_path(lambda path, _: values[_tensor_name(path)], shapes)


def _current_name(name: str, levels: int) -> str:
    """Return the name that the current AutoencoderKL gives to a tensor of a file."""
    # CompVis numbers the decoder's resolutions from the highest one.
    name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up.{levels - 1 - int(m[1])}.", name)
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _tensor_name(path: str) -> str:
    """Return AutoencoderKL's name of a parameter.

    `encoder/down_blocks_0/conv1/kernel` becomes `encoder.down_blocks.0.conv1.weight`.
    """
    path = re.sub(r"_(\d+)(?=/)", r".\1", path).replace("/", ".")
    path = re.sub(r"^\w+\.(?=(post_)?quant_conv)", "", path)
    return re.sub(r"\.(kernel|scale)$", ".weight", path)


def _torch_shape(shape: tuple[int, ...]) -> list[int]:
    """Return a parameter's shape in PyTorch: [out, in, H, W], [out, in] or [out]."""
    return [*shape[:-3:-1], *shape[:-2]]


def _to_flax_layout(tensor: np.ndarray, leaf) -> np.ndarray:
    """Transpose PyTorch's [out, in, H, W] to [H, W, in, out], and [out, in] to [in, out].

    A linear layer may be stored as a 1x1 convolution.
    """
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
        is_linear = len(leaf.shape) == 2 and tensor.shape[:2] == (1, 1)
        return tensor[0, 0] if is_linear else tensor
    return tensor.T


def import_autoencoder(parsed: ExternalConfig, weights: str, workdir_path: str) -> int:
    """Write the weights as a verified checkpoint of a workdir; return their number.

    Importing the same weights again changes nothing.

    Raises:
      DataError: the weights cannot be used; nothing is written.
      ConfigError: the settings do not fit, or the workdir holds something else.
    """
    stage = registry.build(parsed)
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    levels = len(parsed.networks["channels"])
    params = convert_to_params(read_tensors(weights), shapes, levels)
    digest = sha256(epath.Path(weights))
    with workdir.lock_directory(workdir_path) as path:
        _check_workdir(path, digest)
        provenance = {
            "weights": {"file": str(Path(weights).resolve()), "sha256": digest}
        }
        workdir.write_or_check_config(
            path, dataclasses.asdict(parsed), provenance, allow_changes=False
        )
        _save_checkpoint(path, params)
    return trees.num_elements(params)


def _check_workdir(path, digest: str) -> None:
    """Raise a ConfigError if the workdir holds another stage or other weights."""
    if not (path / "config.json").exists():
        return
    saved = workdir.load_run_record(path)
    stage, weights = saved["config"]["stage"], saved["provenance"].get("weights")
    if stage != "external" or weights is None:
        raise ConfigError(
            f"--workdir {path} must be new or hold the same import; it holds a run of stage "
            f"{stage!r}. Choose another --workdir."
        )
    if weights["sha256"] != digest:
        raise ConfigError(
            f"--workdir {path} must be new or hold the same import; it holds the weights of "
            f"{weights['file']}. Choose another --workdir."
        )


def _save_checkpoint(path, params) -> None:
    """Save and verify step 0, or verify what an interrupted import has saved."""
    step = jnp.zeros((), jnp.int32)
    whole = state.TrainState(step=step, params=params, opt={}, ema={})
    shardings = meshes.tree_shardings(meshes.make(), whole)
    abstract = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        whole,
        shardings,
    )
    checkpoints = Checkpoints(path, keep=1)
    try:
        if checkpoints.restore_latest(abstract) is None:
            checkpoints.save(0, jax.device_put(whole, shardings))
    finally:
        checkpoints.close()
