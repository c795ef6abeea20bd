"""Read the named tensors of public weight files; other pickled objects are refused."""

import zipfile

import numpy as np
from etils import epath

from ul.core import extras
from ul.core.errors import DataError
from ul.metrics.features import weights


def _read_torch(path: epath.Path) -> dict[str, np.ndarray]:
    torch = extras.require("torch", str(path), "convert", "torch")
    try:
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        if any(name.endswith("/constants.pkl") for name in names):  # TorchScript
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {k: v.detach().numpy() for k, v in state.items()}
    except Exception as e:  # torch raises many kinds for what it cannot read
        # PyTorch's own message is not shown: it advises to unpickle the file anyway.
        raise DataError(
            f"{path} must be a PyTorch file of named tensors only; it is damaged or holds "
            f"other objects, and was not read ({type(e).__name__}). --trace shows more."
        ) from e


def read_state(path: epath.Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors or a PyTorch file.

    Raises:
      ConfigError: the file is PyTorch's, and PyTorch is not installed.
      DataError: the file is missing, damaged, or holds other objects than named tensors.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing or is not a file. Download it first.")
    if path.suffix == ".safetensors":
        return weights.parse_safetensors(path, path.read_bytes())
    return _read_torch(path)
