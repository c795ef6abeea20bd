"""Your own images: a folder with one subfolder per class, at 32x32 or 64x64.

    python -m ul train --config folder:stage1 --workdir runs/mine1 \\
        --config.data.source.path=/data/mine --config.data.num_classes=3
    python -m ul train --config folder:stage2 --workdir runs/mine2 \\
        --config.data.source.path=/data/mine --config.data.num_classes=3 \\
        --config.stage1.workdir=runs/mine1
    python -m ul train --config folder:decoder --workdir runs/mine_decoder \\
        --config.data.source.path=/data/mine --config.data.num_classes=3 \\
        --config.stage1.workdir=runs/p1 --config.init.workdir=runs/p1

The third command fine-tunes the decoder of another run, here of photos.py, on your images;
its encoder stays as it is, and so do its latents.
`stage1` and `stage2` are for 32x32, `stage1_64` and `stage2_64` for 64x64. Images are
resized to cover the square and cropped at the center. A tenth of the files, chosen by a
hash of their names, is held out; `data.source.holdout` changes this fraction. Broken files
are skipped; if they are more than 1 % of the files, training stops
(`data.source.max_bad_fraction`).

Networks and training settings are those of small.py. No figures were measured.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, frozen, small

VARIANTS = ("stage1", "stage2", "decoder", "stage1_64", "stage2_64")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    size = 64 if arg.endswith("_64") else 32
    source = dict(
        kind="folder",
        path=config_dict.placeholder(str),
        holdout=0.1,
        max_bad_fraction=0.01,
    )
    data = dict(
        source=source,
        image_shape=(size, size, 3),
        num_classes=1,
        flip=True,
        threads=2,
        augment="stream",
    )
    if arg.startswith("stage2"):
        return small.stage2_config(size, data).lock()
    c = small.stage1_config(size, data)
    if arg == "decoder":
        frozen.make_decoder_stage(c, (size // 4, size // 4, 8))
    return c.lock()
