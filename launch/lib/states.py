"""Named tensors of public files; nothing in them but tensors is unpickled."""

import zipfile

import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError
from ul.metrics.features import weights


def _torch_state(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as e:
        raise ConfigError(f"{path} needs PyTorch: pip install '.[convert]'") from e
    try:
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        if any(name.endswith("/constants.pkl") for name in names):  # TorchScript
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {k: v.detach().numpy() for k, v in state.items()}
    except Exception as e:  # torch raises many kinds for what it cannot read
        # Not its words: they advise to unpickle the file all the same.
        raise DataError(
            f"{path} is damaged or holds other things than named tensors, and is not "
            f"read ({type(e).__name__}; --trace shows more)"
        ) from e


def read(path: epath.Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors or a PyTorch file.

    Raises:
      ConfigError: it is PyTorch's, and PyTorch is not installed.
      DataError: it is missing, damaged, or holds other things than named tensors.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    if path.suffix == ".safetensors":
        return weights.parse(path, path.read_bytes())
    return _torch_state(path)
