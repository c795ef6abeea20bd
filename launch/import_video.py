"""Import a video dataset as shards of short clips of one size.

    python -m ul import_video --out /data/kinetics600 --size 128 --frames 32 --fps 25 \\
        --train k600/train --eval k600/val --eval_labels val.csv

--train and --eval are a folder or a tar of videos, or a folder of tars; nothing is
unpacked. The class of a video is the folder directly above it, or is read from
--train_labels and --eval_labels. Run the command again after an interruption: complete
shards are kept.
"""

from absl import flags

from launch.lib import cli, import_flags
from ul import importing

_SOURCES = import_flags.define_sources("videos", "a folder, a tar or a folder of tars")
_LABELS = {
    split: flags.DEFINE_string(
        f"{split}_labels",
        None,
        f"CSV file with the classes of --{split}, with the columns of Kinetics; the files "
        "are then named YOUTUBEID_START_END.",
    )
    for split in ("train", "eval")
}
_OUT = import_flags.define_out()
_SIZE = import_flags.define_size(128)
_FRAMES = flags.DEFINE_integer(
    "frames", 16, "Frames of a clip, taken from the middle of the video.", 1
)
_FPS = flags.DEFINE_float(
    "fps", 25.0, "Frames per second of a clip; 0 keeps the rate of each video.", 0.0
)
_SHARD = import_flags.define_shard_examples("Files", 256)
_JOBS = import_flags.define_jobs("videos")
_BAD = import_flags.define_max_fraction("max_bad_fraction", 0.01, "broken files")


def main() -> None:
    """Write the shards and print a summary."""
    manifest = importing.import_videos(
        {split: cli.required(flag) for split, flag in _SOURCES.items()},
        cli.required(_OUT),
        size=_SIZE.value,
        num_frames=_FRAMES.value,
        fps=_FPS.value,
        labels={split: flag.value for split, flag in _LABELS.items() if flag.value},
        shard_examples=_SHARD.value,
        jobs=_JOBS.value,
        max_bad_fraction=_BAD.value,
    )
    print(importing.summarize(manifest, "clip"))


if __name__ == "__main__":
    cli.run(main)
