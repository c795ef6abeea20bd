"""Implementations of attention, and the choice of one for a device and a shape.

xla     jax.nn.dot_product_attention: runs everywhere, writes all scores to memory
cudnn   cuDNN's fused attention on GPUs, in 16 bits
splash  JAX's Pallas kernel for TPUs (jax.experimental.pallas.ops.tpu.splash_attention)
auto    the fastest of them that the device and the shape allow, else xla
"""

import functools
import logging

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ul.core import mesh as meshes
from ul.core.errors import ConfigError

log = logging.getLogger("ul")

# The platform that each implementation needs; xla and auto run everywhere.
PLATFORMS = {"cudnn": "gpu", "splash": "tpu"}
IMPLEMENTATIONS = ("auto", "xla", *PLATFORMS)
# Blocks of 512 tokens are those that MaxDiffusion ships for TPUs.
_LARGEST_BLOCK, _LANES = 512, 128
_CUDNN_HEAD_DIM = 128


def choose(
    setting: str,
    *,
    tokens: int,
    heads: int,
    head_dim: int,
    dtype: jnp.dtype,
    is_full: bool,
) -> str:
    """Return the implementation of a layer's attention; log the choice of `auto`.

    is_full: full self-attention without text.

    Raises:
      ConfigError: `splash` is set, and it does not support such attention.
    """
    supports_splash = is_full and tokens % _LANES == 0
    if setting == "splash" and not supports_splash:
        kind = "full" if is_full else "factorized or text"
        raise ConfigError(
            "attention='splash' requires full self-attention without text on a multiple of "
            f"{_LANES} tokens; got {tokens} tokens and {kind} attention. Set "
            "attention='auto'."
        )
    if setting != "auto":
        return setting
    platform, chosen = meshes.platform(), "xla"
    if platform == "tpu" and supports_splash:
        chosen = "splash"
    elif platform == "gpu" and _supports_cudnn(head_dim, dtype):
        chosen = "cudnn"
    _log_choice(chosen, tokens, heads, head_dim, dtype.name, platform)
    return chosen


def _supports_cudnn(head_dim: int, dtype: jnp.dtype) -> bool:
    """Return whether cuDNN supports such heads on the attached GPUs, if there are any."""
    is_half = dtype in (jnp.bfloat16, jnp.float16)
    is_recent = True
    if jax.default_backend() == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", ""))
        major = capability.partition(".")[0]
        is_recent = major.isdigit() and int(major) >= 8  # AMD has other names
    return is_half and is_recent and head_dim % 8 == 0 and head_dim <= _CUDNN_HEAD_DIM


@functools.cache
def _log_choice(chosen, tokens, heads, head_dim, dtype, platform) -> None:
    log.info(
        "attention: %s for %d tokens, %d heads of %d channels in %s on a %s",
        chosen, tokens, heads, head_dim, dtype, platform,
    )  # fmt: skip


def splash(q, k, v):
    """Attend on TPUs: [B, heads, N, d] to the same shape, each device on its own rows.

    On other devices the kernel is interpreted, which is slow and serves tests.
    """
    # The kernel is imported here, because it takes a tenth of a second on every machine.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    _, heads, tokens, head_dim = q.shape
    block = max(n for n in range(_LANES, _LARGEST_BLOCK + 1, _LANES) if not tokens % n)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )

    def attend(q, k, v):
        full = splash_attention_mask.FullMask((tokens, tokens))
        kernel = splash_attention_kernel.make_splash_mha_single_device(
            mask=splash_attention_mask.MultiHeadMask([full] * heads),
            block_sizes=sizes,
            interpret=meshes.platform() != "tpu",
        )
        return jax.vmap(kernel)(q, k, v)

    q = q * jnp.asarray(head_dim**-0.5, q.dtype)
    if jax.sharding.get_abstract_mesh().empty:
        return attend(q, k, v)
    rows = P(meshes.AXES)
    return jax.shard_map(
        attend, in_specs=(rows, rows, rows), out_specs=rows, check_vma=False
    )(q, k, v)
