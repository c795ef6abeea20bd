"""Default environment variables of each accelerator, merged with those of the user.

launch/SPEED.md gives the reason and the source of each.
"""

from collections.abc import Sequence

from launch.lib.templates import name_values

GPU = {
    "JAX_OPTIMIZATION_LEVEL": "O1",
    "NCCL_NVLS_ENABLE": "1",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9",
}
# The keys are prefixes of accelerator names, on GKE and on TPU VMs.
_SCOPED_VMEM_KIB = {
    ("tpu-v5p", "v5p"): 65_536,
    ("tpu-v6e", "v6e"): 98_304,
}


def variables_for(accelerator: str) -> dict[str, str]:
    """Return the variables for TPUs of this type, or for NVIDIA's GPUs."""
    if accelerator.startswith("nvidia"):
        return GPU
    for prefixes, kib in _SCOPED_VMEM_KIB.items():
        if accelerator.startswith(prefixes):
            return {"LIBTPU_INIT_ARGS": f"--xla_tpu_scoped_vmem_limit_kib={kib}"}
    return {}


def merge(defaults: dict[str, str], chosen: Sequence[str]) -> list[str]:
    """Return NAME=VALUE of all variables; a value that the user has chosen wins.

    Raises:
      ConfigError: an entry of `chosen` is not NAME=VALUE.
    """
    pairs = (text.partition("=") for text in name_values("env", chosen))
    merged = defaults | {name: value for name, _, value in pairs}
    return [f"{name}={value}" for name, value in merged.items()]
