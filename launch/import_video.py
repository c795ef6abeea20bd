"""A video data set's original clips to shards of short clips of one size, once.

    python -m launch.import_video --out /data/kinetics600 --size 128 --frames 32 --fps 25 \\
        --train k600/train --eval k600/val --eval_labels val.csv

--train and --eval: a folder or a tar of clips, or a folder of tars; nothing is unpacked. A
clip's class is the folder directly above it, or what the split's list says (CSV with the
original columns; files named <youtube_id>_<start>_<end>). Run it again after an
interruption: shards that are whole stay.
"""

import os

from absl import flags

from launch.lib import cli
from ul import importing

_TRAIN = flags.DEFINE_string("train", None, "Training clips: a folder or a tar.")
_EVAL = flags.DEFINE_string("eval", None, "Held-out clips: a folder or a tar.")
_LABELS = {
    split: flags.DEFINE_string(f"{split}_labels", None, "Its list, as Kinetics has it.")
    for split in ("train", "eval")
}
_OUT = flags.DEFINE_string("out", None, "The directory of the shards.")
_SIZE = flags.DEFINE_integer("size", 128, "Pixels a side.", 8, 4096)
_FRAMES = flags.DEFINE_integer("frames", 16, "Frames of a clip, from its middle.", 1)
_FPS = flags.DEFINE_float("fps", 25.0, "Frames a second; 0: each clip's own.", 0.0)
_SHARD = flags.DEFINE_integer("shard_examples", 256, "Files of a shard.", 1)
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Clips at a time.", 1)
_BAD = flags.DEFINE_float(
    "max_bad_fraction", 0.01, "More broken files are an error.", 0.0, 1.0
)


def main() -> None:
    paths = {"train": cli.required(_TRAIN), "eval": cli.required(_EVAL)}
    manifest = importing.clips_of(
        paths,
        cli.required(_OUT),
        size=_SIZE.value,
        frames=_FRAMES.value,
        fps=_FPS.value,
        labels={split: flag.value for split, flag in _LABELS.items() if flag.value},
        shard_examples=_SHARD.value,
        jobs=_JOBS.value,
        max_bad_fraction=_BAD.value,
    )
    print(importing.said(manifest, "clip"))


if __name__ == "__main__":
    cli.run(main)
