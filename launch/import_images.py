"""Import an image dataset as shards of images of one size.

    python -m ul import_images --out /data/imagenet512 --size 512 \\
        --train ILSVRC2012_img_train.tar --eval ILSVRC2012_img_val.tar --eval_labels val.txt
    python -m ul train --config imagenet512:stage1 --workdir W \\
        --config.data.source.path=/data/imagenet512

--train and --eval are a folder of class folders, a tar of class folders, or a tar of class
tars. With --one_class, for datasets with captions (`ul embed_captions`), they may have
any depth. Nothing is unpacked. Run the command again after an interruption: complete
shards are kept.
"""

from absl import flags

from launch.lib import cli, import_flags
from ul import importing
from ul.core.errors import ConfigError

_SOURCES = import_flags.define_sources("images", "a folder or a tar")
_LABELS = flags.DEFINE_string(
    "eval_labels",
    None,
    "Text file with the classes of the held-out images: lines `FILE CLASS`, or only the "
    "classes in the order of the files.",
)
_ONE_CLASS = flags.DEFINE_bool(
    "one_class", False, "Give all images the same class; folders are not classes."
)
_OUT = import_flags.define_out()
_SIZE = import_flags.define_size(512)
_SHARD = import_flags.define_shard_examples("Files", 1024)
_JOBS = import_flags.define_jobs("images")
_BAD = import_flags.define_max_fraction("max_bad_fraction", 0.001, "broken files")


def main() -> None:
    """Write the shards and print a summary."""
    if _ONE_CLASS.value and _LABELS.value:
        raise ConfigError(
            "--eval_labels and --one_class contradict each other; give only one of them."
        )
    manifest = importing.import_images(
        {split: cli.required(flag) for split, flag in _SOURCES.items()},
        cli.required(_OUT),
        size=_SIZE.value,
        labels=_LABELS.value,
        one_class=_ONE_CLASS.value,
        shard_examples=_SHARD.value,
        jobs=_JOBS.value,
        max_bad_fraction=_BAD.value,
    )
    print(importing.summarize(manifest, "image"))


if __name__ == "__main__":
    cli.run(main)
