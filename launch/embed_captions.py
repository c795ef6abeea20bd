"""The captions of imported images, embedded once by a text encoder of your choice.

    pip install -c constraints.txt '.[text]'
    python -m launch.import_images --out /data/coco512 --size 512 --one_class \\
        --train train2017 --eval val2017
    python -m launch.embed_captions --images /data/coco512 --out /data/coco512_t5 \\
        --captions captions_train2017.json,captions_val2017.json \\
        --model google/t5-v1_1-xxl --tokens 128

--captions: .tsv of `file<TAB>caption`, .jsonl of {file_name, text}, COCO's .json, or a folder
or tar with a .txt beside each image; of several captions of an image the first is taken.
--model: a name on the Hugging Face hub or a folder: T5, CLIP, anything with last_hidden_state.
Run it again after an interruption: shards that are whole stay. --prompts lines.txt, without
--images and --captions, makes an .npz of each line instead, for launch.sample.
"""

from absl import flags

from launch.lib import cli
from ul.core.errors import ConfigError
from ul.importing import captions, text_encoder

_IMAGES = flags.DEFINE_string("images", None, "What launch.import_images wrote.")
_CAPTIONS = flags.DEFINE_list("captions", [], "Files of captions, or a folder or tar.")
_MODEL = flags.DEFINE_string("model", None, "The text encoder: a hub name or a folder.")
_OUT = flags.DEFINE_string("out", None, "The directory of the shards.")
_PROMPTS = flags.DEFINE_string("prompts", None, "A file of captions, one a line.")
_TOKENS = flags.DEFINE_integer("tokens", 128, "Longer captions are cut.", 1, 4096)
_DTYPE = flags.DEFINE_enum(
    "compute", "float32", ["float32", "bfloat16"], "The encoder's parameters and sums."
)
_BATCH = flags.DEFINE_integer("batch_size", 32, "Captions at a time.", 1)
_SHARD = flags.DEFINE_integer("shard_examples", 1024, "Captions of a shard.", 1)
_MISSING = flags.DEFINE_float(
    "max_missing_fraction", 0.0, "More images without caption are an error.", 0.0, 1.0
)


def _encoder() -> captions.TextEncoder:
    model, dtype = cli.required(_MODEL), _DTYPE.value
    return text_encoder.load(model, tokens=_TOKENS.value, dtype=dtype)


def main() -> None:
    out = cli.required(_OUT)
    if _PROMPTS.value:
        count = captions.embed_prompts(_PROMPTS.value, _encoder(), out)
        return print(f"{count} captions: {out}")
    if not _CAPTIONS.value:
        raise ConfigError("--captions is missing")
    image_set = cli.required(_IMAGES)
    manifest = captions.captions_of(
        image_set,
        _CAPTIONS.value,
        out,
        _encoder(),
        batch_size=_BATCH.value,
        shard_examples=_SHARD.value,
        max_missing_fraction=_MISSING.value,
    )
    for split, about in manifest["splits"].items():
        size = sum(s["bytes"] for s in about["shards"]) / 2**20
        print(
            f"{split}: {about['count']} captions, {about['empty']} of them empty, "
            f"{about['full']} of all {manifest['tokens']} tokens (cut, if longer), "
            f"{size:.1f} MiB"
        )
    print(f"channels {manifest['channels']}; digest {manifest['digest'][:16]}")


if __name__ == "__main__":
    cli.run(main)
