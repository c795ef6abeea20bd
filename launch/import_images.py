"""An image data set's original archives to shards of one size, once.

    python -m launch.import_images --out /data/imagenet512 --size 512 \\
        --train ILSVRC2012_img_train.tar --eval ILSVRC2012_img_val.tar --eval_labels val.txt
    python -m launch.train --config experiments/imagenet512.py:stage1 --workdir W \\
        --config.data.source.path=/data/imagenet512

--train and --eval: a folder of class folders, a tar of them, or a tar of class tars; of any
depth with --one_class, as for captions (launch.embed_captions); nothing is unpacked.
Run it again after an interruption: shards that are whole stay.
"""

import os

from absl import flags

from launch.lib import cli
from ul import importing
from ul.core.errors import ConfigError

_TRAIN = flags.DEFINE_string("train", None, "Training images: a folder or a tar.")
_EVAL = flags.DEFINE_string("eval", None, "Held-out images: a folder or a tar.")
_LABELS = flags.DEFINE_string(
    "eval_labels", None, "Lines `file class`, or classes alone in the files' order."
)
_ONE = flags.DEFINE_bool("one_class", False, "Folders are no classes.")
_OUT = flags.DEFINE_string("out", None, "The directory of the shards.")
_SIZE = flags.DEFINE_integer("size", 512, "Pixels a side.", 8, 4096)
_SHARD = flags.DEFINE_integer("shard_examples", 1024, "Files of a shard.", 1)
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Images at a time.", 1)
_BAD = flags.DEFINE_float(
    "max_bad_fraction", 0.001, "More broken files are an error.", 0.0, 1.0
)


def main() -> None:
    if _ONE.value and _LABELS.value:
        raise ConfigError(
            "--eval_labels says classes, and --one_class that there are none"
        )
    paths = {"train": cli.required(_TRAIN), "eval": cli.required(_EVAL)}
    manifest = importing.images_of(
        paths,
        cli.required(_OUT),
        size=_SIZE.value,
        labels=_LABELS.value,
        one_class=_ONE.value,
        shard_examples=_SHARD.value,
        jobs=_JOBS.value,
        max_bad_fraction=_BAD.value,
    )
    print(importing.said(manifest, "image"))


if __name__ == "__main__":
    cli.run(main)
