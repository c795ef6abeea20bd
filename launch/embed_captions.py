"""Embed the captions of imported images with a text encoder.

    python -m ul embed_captions --images /data/coco512 --out /data/coco512_t5 \\
        --captions captions_train2017.json,captions_val2017.json \\
        --model google/t5-v1_1-xxl --tokens 128
    python -m ul embed_captions --prompts lines.txt --model google/t5-v1_1-xxl \\
        --out prompts.npz

--captions are .tsv files of `FILE<TAB>CAPTION` lines, .jsonl files of {file_name, text},
COCO's .json files, or folders or tars with a .txt file beside each image. The first caption
of an image is used. Run the command again to continue; complete shards are kept. The text
encoder needs `pip install '.[text]'`.
"""

import functools

from absl import flags

from launch.lib import cli, import_flags
from ul.importing import captions, text_encoder

_IMAGES = flags.DEFINE_string(
    "images", None, "Directory that python -m ul import_images wrote."
)
_CAPTIONS = flags.DEFINE_list("captions", [], "Files, folders or tars with captions.")
_EVAL_CAPTIONS = flags.DEFINE_list(
    "eval_captions",
    [],
    "The same for the held-out images; if unset, --captions are for both splits.",
)
_PROMPTS = flags.DEFINE_string(
    "prompts", None, "Text file with a prompt per line, for python -m ul sample."
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Name (Hugging Face hub) or folder of the text encoder, such as T5 or CLIP. Required.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Directory of the shards, or the .npz file for --prompts. Required."
)
_TOKENS = flags.DEFINE_integer("tokens", 128, "Tokens of a caption at most.", 1, 4096)
_DTYPE = flags.DEFINE_enum(
    "compute", "float32", ["float32", "bfloat16"], "Type of the encoder's computations."
)
_BATCH = flags.DEFINE_integer(
    "batch_size", 32, "Captions that are encoded together.", 1
)
_SHARD = import_flags.define_shard_examples("Captions", 1024)
_MISSING = import_flags.define_max_fraction(
    "max_missing_fraction", 0.0, "images without a caption"
)


def main() -> None:
    """Write the embeddings and print a summary."""
    out, model = cli.required(_OUT), cli.required(_MODEL)
    load_encoder = functools.partial(
        text_encoder.load, model, tokens=_TOKENS.value, dtype=_DTYPE.value
    )
    if _PROMPTS.value:
        prompts = captions.read_prompts(_PROMPTS.value)
        captions.write_prompt_embeddings(prompts, load_encoder(), out)
        return print(f"wrote {len(prompts)} captions to {out}")
    image_set, files = cli.required(_IMAGES), cli.required(_CAPTIONS)
    manifest = captions.embed_captions(
        image_set,
        {"train": files, "eval": _EVAL_CAPTIONS.value or files},
        out,
        load_encoder,
        batch_size=_BATCH.value,
        shard_examples=_SHARD.value,
        max_missing_fraction=_MISSING.value,
    )
    print(captions.summarize(manifest))


if __name__ == "__main__":
    cli.run(main)
