"""Another's KL autoencoder as the workdir of a stage 1: its weights, read and committed.

Read are safetensors files with the names of the diffusers package's AutoencoderKL, of
this or an older version, or those of latent diffusion's own code (CompVis), alone or in
the file of a whole model.
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

from ul import config
from ul.checkpoints import workdir
from ul.checkpoints.store import Checkpoints
from ul.core import mesh as meshes
from ul.core import trees
from ul.core.errors import ConfigError, DataError
from ul.core.files import PICKLE_SUFFIXES, is_pickle, sha256
from ul.stages import registry
from ul.train import state

# Where a whole model's file has its autoencoder.
WITHIN = "first_stage_model."
# Older names and CompVis's to those of AutoencoderKL, in this order.
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
# Of AutoencoderKL's config.json: our name, and what stands for a key that is not there.
SIZES: dict[str, tuple[str, Any]] = {
    "block_out_channels": ("channels", (64,)),
    "layers_per_block": ("blocks", 1),
    "latent_channels": ("latent_channels", 4),
    "norm_num_groups": ("groups", 32),
    "mid_block_add_attention": ("attention", True),
    "use_quant_conv": ("quant_conv", True),
    "use_post_quant_conv": ("post_quant_conv", True),
}
# What these networks are, and no config.json may change.
FIXED: dict[str, tuple] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
}
BLOCKS = {
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
}


def settled(parsed: config.ExternalConfig, path: str) -> config.ExternalConfig:
    """The config with the sizes, the scale and the shift of a config.json of diffusers.

    Raises:
      DataError: it cannot be read, or describes other networks.
      ConfigError: its images have other channels, or a value is of the wrong type.
    """
    try:
        found = dict(json.loads(Path(path).read_text()))
    except (OSError, TypeError, ValueError) as e:
        raise DataError(f"{path} cannot be read as a config.json: {e}") from e
    for key, known in FIXED.items():
        if found.get(key, known[0]) not in known:
            raise DataError(f"{path}: {key} is {found[key]!r}; known is {known[0]!r}")
    for key, block in BLOCKS.items():
        other = set(map(str, found.get(key) or ())) - {block}
        if other:
            raise DataError(f"{path}: {key} has {sorted(other)}; known is {block!r}")
    channels = parsed.data.image_shape[2]
    for key in ("in_channels", "out_channels"):
        if found.get(key, 3) != channels:
            raise ConfigError(
                f"{path}: {key} is {found.get(key, 3)}, but data.image_shape has {channels}"
            )
    networks = {ours: found.get(key, least) for key, (ours, least) in SIZES.items()}
    plain = dataclasses.asdict(parsed) | {
        "networks": networks,
        "scale": found.get("scaling_factor", 0.18215),
        "shift": found.get("shift_factor") or 0.0,
    }
    return config.parse(registry.plain(plain), config.ExternalConfig)


def read(path: str) -> dict[str, np.ndarray]:
    """The autoencoder's tensors of a safetensors file in float32, as they are named there.

    Raises:
      DataError: no such file, a damaged one, a pickle, or numbers that are not finite.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}") from e
    if is_pickle(head) or path.endswith(PICKLE_SUFFIXES):
        raise DataError(
            f"{path} is a pickle, which can run code when it is read; give the weights "
            "as safetensors"
        )
    try:
        with safetensors.safe_open(path, "np") as file:
            names = list(file.keys())
            within = [name for name in names if name.startswith(WITHIN)]
            tensors = {n: file.get_tensor(n) for n in within or names}
    except (safetensors.SafetensorError, OSError, TypeError) as e:
        raise DataError(f"{path} cannot be read as safetensors: {e}") from e
    for name, tensor in tensors.items():
        if (
            tensor.dtype.kind in "biu"
            or not np.isfinite(tensor.astype(np.float32)).all()
        ):
            raise DataError(
                f"{path}: {name} has {tensor.dtype} that are not finite floats"
            )
    return {
        name.removeprefix(WITHIN): tensor.astype(np.float32)
        for name, tensor in tensors.items()
    }


def fill(tensors: Mapping[str, np.ndarray], shapes, levels: int) -> Any:
    """Parameters of the given `shapes` from the tensors, each used and each filled.

    Raises:
      DataError: naming the first that are missing, left over or of another shape.
    """
    found: dict[str, np.ndarray] = {}
    wrong = []
    for name, tensor in tensors.items():
        renamed = _renamed(name, levels)
        wrong += [f"{name} is there twice"] if renamed in found else []
        found[renamed] = tensor
    wanted = {
        _public(path): leaf for path, leaf in trees.leaves_by_path(shapes).items()
    }
    wrong += [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is not known" for name in found if name not in wanted]
    made = {
        name: _laid_out(found[name], leaf)
        for name, leaf in wanted.items()
        if name in found
    }
    wrong += [
        f"{name} is {list(found[name].shape)}, wanted {_theirs(wanted[name].shape)}"
        for name, value in made.items()
        if value.shape != wanted[name].shape
    ]
    if wrong:
        raise DataError(
            f"the weights do not fit the networks, {len(wrong)} tensors: "
            f"{'; '.join(wrong[:3])}; give their --vae_config, or change config.networks"
        )
    return trees.map_with_path(lambda path, _: made[_public(path)], shapes)


def _renamed(name: str, levels: int) -> str:
    """A tensor's name in a file as AutoencoderKL calls it now."""
    # CompVis counts the decoder's resolutions from the image down.
    name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up.{levels - 1 - int(m[1])}.", name)
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _public(path: str) -> str:
    """`encoder/down_blocks_0/conv1/kernel` as `encoder.down_blocks.0.conv1.weight`."""
    path = re.sub(r"_(\d+)(?=/)", r".\1", path).replace("/", ".")
    path = re.sub(r"^\w+\.(?=(post_)?quant_conv)", "", path)
    return re.sub(r"\.(kernel|scale)$", ".weight", path)


def _theirs(shape: tuple[int, ...]) -> list[int]:
    """A parameter's shape in PyTorch: [out, in, H, W], [out, in] or [out]."""
    return [*shape[:-3:-1], *shape[:-2]]


def _laid_out(tensor: np.ndarray, leaf) -> np.ndarray:
    """PyTorch's [out, in, H, W] as [H, W, in, out]; a linear layer may be a 1x1 one."""
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
        one = len(leaf.shape) == 2 and tensor.shape[:2] == (1, 1)
        return tensor[0, 0] if one else tensor
    return tensor.T


def create(parsed: config.ExternalConfig, weights: str, where: str) -> int:
    """A verified checkpoint of the weights in the workdir `where`; their number.

    Done again, nothing changes.

    Raises:
      DataError: weights that cannot be used; nothing is left.
      ConfigError: settings that do not fit, or a workdir of something else.
    """
    made, shape = registry.stage1(parsed), parsed.data.image_shape
    shapes = jax.eval_shape(lambda: made.modules.init(jax.random.key(0), shape))
    levels = len(parsed.networks["channels"])
    params = fill(read(weights), shapes, levels)
    digest = sha256(epath.Path(weights))
    with workdir.lock_directory(where) as path:
        _check_ours(path, digest)
        provenance = {
            "weights": {"file": str(Path(weights).resolve()), "sha256": digest}
        }
        workdir.write_or_check_config(
            path, dataclasses.asdict(parsed), provenance, allow_changes=False
        )
        _commit(path, params)
    return trees.num_elements(params)


def _check_ours(path, digest: str) -> None:
    """Raises ConfigError for a workdir of another stage or of other weights."""
    if not (path / "config.json").exists():
        return
    saved = workdir.load_run_record(path)
    stage, known = saved["config"]["stage"], saved["provenance"].get("weights")
    if stage != "external" or known is None:
        raise ConfigError(
            f"{path} holds a run of stage {stage!r}; choose another --workdir"
        )
    if known["sha256"] != digest:
        raise ConfigError(f"{path} holds {known['file']}; choose another --workdir")


def _commit(path, params) -> None:
    """Step 0, saved and verified as a trainer's; what an import before left is verified."""
    zero = jnp.zeros((), jnp.int32)
    whole = state.TrainState(step=zero, params=params, opt={}, ema={})
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
