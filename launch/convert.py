"""Convert public weights of a feature network to the safetensors file of evaluations.

    python -m ul convert inception --weights_dir W --license Apache-2.0 \\
      --source pt_inception-2015-12-05-6726825d.pth --url https://github.com/mseitzer/...
    python -m ul convert lpips --weights_dir W --license "BSD-3-Clause, BSD-2-Clause" \\
      --source vgg16-397923af.pth,lpips/weights/v0.1/vgg.pth --url https://...,https://...
    python -m ul convert clip --weights_dir W --license MIT \\
      --source clip-vit-large-patch14/model.safetensors --url https://huggingface.co/...

PyTorch (the extra `convert`) is needed unless every source is a safetensors file. CLIP's
config and tokenizer are read from the folder of its source.
"""

import functools
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from launch.lib import cli, states
from ul.core.errors import DataError
from ul.metrics.features import clip, dinov2, i3d, inception, lpips, weights

_SOURCE = flags.DEFINE_list("source", [], "Public files; several are merged.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of converted weights.")
_LICENSE = flags.DEFINE_string(
    "license", None, "License of the weights; recorded in manifest.json."
)
_URL = flags.DEFINE_string(
    "url", None, "Address of the source; recorded in manifest.json."
)

FEATURE_MODULES: dict[str, Any] = {
    weights.network_name(module): module
    for module in (clip, dinov2, i3d, inception, lpips)
}


def main(network: str) -> None:
    """Convert the weights of one network and print the file's SHA-256."""
    folder, license, url = (cli.required(f) for f in (_WEIGHTS_DIR, _LICENSE, _URL))
    module = FEATURE_MODULES[network]
    state: dict[str, np.ndarray] = {}
    companions: dict[str, bytes] = {}
    sources = [epath.Path(source) for source in cli.required(_SOURCE)]
    for source in sources:
        state |= states.read_state(source)
    try:
        if module is clip:
            module, companions = clip.module_and_companions(sources[0].parent, state)
        arrays = module.from_torch(state)
    except KeyError as e:
        raise DataError(
            f"--source must have all tensors of {network}; "
            f"{','.join(_SOURCE.value)} lacks {e.args[0]}."
        ) from e
    digest = weights.save(
        folder, module, arrays, license=license, source=url, companions=companions
    )
    size = sum(a.size for a in arrays.values())
    print(f"{epath.Path(folder) / module.FILE}: {size:,} parameters, SHA-256 {digest}")


if __name__ == "__main__":
    cli.run({name: functools.partial(main, name) for name in FEATURE_MODULES})
