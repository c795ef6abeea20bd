"""Public weights of a feature network to a safetensors file that evaluations read.

    python -m launch.convert inception --weights_dir W --licence Apache-2.0 \\
      --source pt_inception-2015-12-05-6726825d.pth --url https://github.com/mseitzer/...
    python -m launch.convert lpips --weights_dir W --licence "BSD-3-Clause, BSD-2-Clause" \\
      --source vgg16-397923af.pth,lpips/weights/v0.1/vgg.pth --url https://...,https://...
    python -m launch.convert clip --weights_dir W --licence MIT \\
      --source clip-vit-large-patch14/model.safetensors --url https://huggingface.co/...

Needs PyTorch (the extra `convert`) unless every source is a safetensors file. CLIP's config
and tokenizer are read from the folder of its source.
"""

import functools
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from launch.lib import cli, states
from ul.core.errors import DataError
from ul.metrics.features import clip, dinov2, i3d, inception, lpips, weights

_SOURCE = flags.DEFINE_list("source", [], "The public file; several are merged.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where evaluations look.")
_LICENCE = flags.DEFINE_string(
    "licence", None, "Of the weights; kept in manifest.json."
)
_URL = flags.DEFINE_string("url", None, "Where the source came from; kept as well.")

NETWORKS = {
    module.__name__.rpartition(".")[2]: module
    for module in (clip, dinov2, i3d, inception, lpips)
}


def main(network: str) -> None:
    folder, licence, url = (cli.required(f) for f in (_WEIGHTS_DIR, _LICENCE, _URL))
    module: Any = NETWORKS[network]
    state: dict[str, np.ndarray] = {}
    more: dict[str, bytes] = {}
    sources = [epath.Path(source) for source in cli.required(_SOURCE)]
    for source in sources:
        state |= states.read(source)
    try:
        if module is clip:
            module, more = clip.beside(sources[0].parent, state)
        arrays = module.from_torch(state)
    except KeyError as e:
        given = ",".join(_SOURCE.value)
        raise DataError(f"{given} lacks {e.args[0]}, which {network} needs") from e
    about = {"licence": licence, "source": url}
    digest = weights.save(folder, module, arrays, companions=more, **about)
    size = sum(a.size for a in arrays.values())
    print(f"{epath.Path(folder) / module.FILE}: {size:,} numbers, SHA-256 {digest}")


if __name__ == "__main__":
    cli.run({name: functools.partial(main, name) for name in NETWORKS})
