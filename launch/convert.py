"""Public weights of a feature network to a safetensors file that evaluations read.

    python -m launch.convert inception --weights_dir W --licence Apache-2.0 \\
      --source pt_inception-2015-12-05-6726825d.pth --url https://github.com/mseitzer/...
    python -m launch.convert lpips --weights_dir W --licence "BSD-3-Clause, BSD-2-Clause" \\
      --source vgg16-397923af.pth,lpips/weights/v0.1/vgg.pth --url https://...,https://...

Needs PyTorch (the extra `convert`) unless every source is a safetensors file.
"""

import functools
import zipfile

import numpy as np
from absl import flags
from etils import epath

from launch import cli
from ul.core.errors import ConfigError, DataError
from ul.evals.features import dinov2, i3d, inception, lpips, weights

_SOURCE = flags.DEFINE_list("source", [], "The public file; several are merged.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where evaluations look.")
_LICENCE = flags.DEFINE_string(
    "licence", None, "Of the weights; kept in manifest.json."
)
_URL = flags.DEFINE_string("url", None, "Where the source came from; kept as well.")

NETWORKS = {"dinov2": dinov2, "i3d": i3d, "inception": inception, "lpips": lpips}


def _torch_state(path: epath.Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file; nothing in it but tensors is unpickled."""
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


def _read(path: epath.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    if path.suffix == ".safetensors":
        return weights.parse(path, path.read_bytes())
    return _torch_state(path)


def main(network: str) -> None:
    folder, licence, url = (cli.required(f) for f in (_WEIGHTS_DIR, _LICENCE, _URL))
    module = NETWORKS[network]
    state: dict[str, np.ndarray] = {}
    for source in cli.required(_SOURCE):
        state |= _read(epath.Path(source))
    try:
        arrays = module.from_torch(state)
    except KeyError as e:
        sources = ",".join(_SOURCE.value)
        raise DataError(f"{sources} lacks {e.args[0]}, which {network} needs") from e
    digest = weights.save(folder, module, arrays, licence=licence, source=url)
    size = sum(a.size for a in arrays.values())
    print(f"{epath.Path(folder) / module.FILE}: {size:,} numbers, SHA-256 {digest}")


if __name__ == "__main__":
    cli.run({name: functools.partial(main, name) for name in NETWORKS})
