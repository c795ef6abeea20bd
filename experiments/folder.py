"""Your own images: a folder with one subfolder a class, 32x32 or 64x64.

Variants: stage1, stage2 (32x32), stage1_64, stage2_64. Images are resized to cover the
square and cut at the centre; a tenth of the files, chosen by a hash of their names, is
held out; up to one file in a hundred may be broken.

    python -m launch.train --config experiments/folder.py:stage1 --workdir runs/mine1 \\
        --config.data.source.path=/data/mine --config.data.num_classes=3
    python -m launch.train --config experiments/folder.py:stage2 --workdir runs/mine2 \\
        --config.data.source.path=/data/mine --config.data.num_classes=3 \\
        --config.stage1.workdir=runs/mine1
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, small

VARIANTS = ("stage1", "stage2", "stage1_64", "stage2_64")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
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
    first = arg.startswith("stage1")
    make = small.stage1 if first else small.stage2
    return make(size, data).lock()
