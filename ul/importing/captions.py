"""Embed the captions of imported images, or prompts for `ul sample`."""

import collections
import dataclasses
import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from ul.checkpoints import workdir
from ul.core.errors import ConfigError, DataError
from ul.core.files import write_atomic
from ul.data import record_shards
from ul.data.record_shards import Shard
from ul.data.sources import captioned, imported_captions, imported_images
from ul.data.sources.imported_captions import EmbeddedCaption
from ul.importing import caption_files, writing

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A text encoder.

    embed: returns for each caption its vectors, float32 [length, channels], of which there
      are at most `tokens`.
    identity: names and digests, which are equal if two encoders give the same vectors.
    """

    embed: Callable[[Sequence[str]], list[np.ndarray]]
    channels: int
    tokens: int
    identity: dict[str, Any]


def embed_captions(
    images: str,
    files: Sequence[str],
    out: str,
    encoder: TextEncoder,
    *,
    batch_size: int,
    shard_examples: int,
    max_missing_fraction: float,
) -> dict:
    """Embed the captions of imported images into the directory `out`; return the manifest.

    `images` is the directory of `ul import_images` and `files` are caption files. An image
    without a caption gets an empty text of length 0. An interrupted run continues: complete
    shards stay.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """
    with workdir.lock_directory(out):
        store = imported_captions.open_store(out)
        image_store = imported_images.open_store(images)
        image_manifest, _ = image_store.load_manifest({"size", "classes", "digest"})
        names = imported_images.load_names(image_store, image_manifest)
        captions = match_captions(names, files, max_missing_fraction)
        identity = {
            "images": image_manifest["digest"],
            "shard_examples": shard_examples,
            "encoder": encoder.identity,
            "tokens": encoder.tokens,
            "channels": encoder.channels,
            "dtype": captioned.TEXT_DTYPE.name,
            "splits": {split: _identity(own) for split, own in captions.items()},
        }
        store.begin(identity, imported_captions.differences)

        def write_shard(shard: Shard, bar: tqdm) -> dict:
            own = captions[shard.split][shard.first : shard.first + shard.count]
            embedded = _embed(own, encoder, batch_size, bar)
            return imported_captions.write_shard(store, shard, embedded, encoder.tokens)

        counts = {split: len(own) for split, own in captions.items()}
        summaries = writing.write_missing_shards(
            store,
            record_shards.plan_shards(counts, shard_examples),
            write_shard,
            unit="caption",
            title="embed",
        )
        return imported_captions.write_manifest(store, identity, summaries)


def write_prompt_embeddings(path: str, encoder: TextEncoder, out: str) -> int:
    """Embed the lines of a text file into an .npz file for `ul sample`; return their number.

    Raises:
      DataError: the file cannot be read or is blank.
      StorageError: the .npz file cannot be written.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [" ".join(line.split()) for line in file]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--prompts {path} cannot be read: {e}") from e
    prompts = [line for line in lines if line]
    if not prompts:
        raise DataError(
            f"--prompts {path} must have one prompt per line; the file is empty."
        )
    text_shape = (encoder.tokens, encoder.channels)
    embedded = [
        captioned.pad_text(_embed_one(encoder, prompt), text_shape)
        for prompt in tqdm(prompts, unit="caption", desc="embed")
    ]
    content = io.BytesIO()
    np.savez(
        content,
        text=np.stack([example["text"] for example in embedded]),
        text_length=np.stack([example["text_length"] for example in embedded]),
        caption=np.asarray(prompts),
        encoder=np.asarray(_canonical_json(encoder.identity)),
    )
    write_atomic(epath.Path(out), content.getvalue())
    return len(prompts)


def _embed_one(encoder: TextEncoder, caption: str) -> np.ndarray:
    # Alone, so that the vectors do not depend on the other prompts in a batch.
    return imported_captions.to_storage_dtype(encoder.embed([caption])[0])


def _canonical_json(identity: dict) -> str:
    return json.dumps(identity, sort_keys=True)


def read_prompt_embeddings(
    path: str, source: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the text condition and the prompts in a file of `write_prompt_embeddings`.

    `source` is the model's data.source. If its captions are still there, their text encoder
    must be that of the file; otherwise this is not checked.

    Raises:
      DataError: the file cannot be read.
      ConfigError: another text encoder embedded the prompts.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            condition = {name: data[name] for name in ("text", "text_length")}
            prompts, encoder = data["caption"].tolist(), str(data["encoder"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(
            f"{path} must be an .npz file of python -m ul embed_captions --prompts; reading it "
            f"failed: {e}"
        ) from e
    if source["kind"] == "imported_captions":
        _check_encoder(path, encoder, source["captions"])
    return condition, prompts


def _check_encoder(path: str, encoder: str, captions: str) -> None:
    try:
        store = imported_captions.open_store(captions)
        manifest, _ = store.load_manifest({"encoder"})
    except DataError as e:
        log.warning("The text encoder of %s cannot be checked: %s", path, e)
        return
    required = _canonical_json(manifest["encoder"])
    if required != encoder:
        raise ConfigError(
            f"{path} must be embedded by the text encoder of the model's captions, "
            f"{required}; it was embedded by {encoder}."
        )


def _identity(captions: list[str]) -> dict:
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return {"count": len(captions), "captions": digest[:16]}


def match_captions(
    names: dict[str, list[str]], files: Sequence[str], max_missing_fraction: float
) -> dict[str, list[str]]:
    """Return the caption of each named image of each split, "" for none.

    If several caption files have an image, the first file decides.

    Raises:
      DataError: too many images have no caption, or a caption fits several images.
    """
    caption_by_key: dict[str, str] = {}
    for path in files:
        own = caption_files.read_captions(path)
        caption_by_key = own | caption_by_key
        log.info("%s has captions of %d images", path, len(own))
    all_names = [name for own in names.values() for name in own]
    base_name_counts = collections.Counter(map(os.path.basename, all_names))
    captions = {
        split: [_find_caption(name, caption_by_key, base_name_counts) for name in own]
        for split, own in names.items()
    }
    missing = [
        name
        for split, own in names.items()
        for name, caption in zip(own, captions[split], strict=True)
        if not caption
    ]
    if missing:
        log.warning(
            "%d of %d images have no caption, for example %s",
            len(missing),
            len(all_names),
            missing[0],
        )
    if len(missing) > max_missing_fraction * len(all_names):
        raise DataError(
            f"At most a fraction {max_missing_fraction} of the images may lack a caption in "
            f"{', '.join(files)}; {len(missing)} of {len(all_names)} images have no caption, "
            f"for example {missing[0]}. Add their captions, or raise --max_missing_fraction "
            "to give them empty text."
        )
    return captions


def _find_caption(
    name: str, caption_by_key: dict[str, str], base_name_counts: collections.Counter
) -> str:
    """Look an image up by its full or base name, each with or without the suffix."""
    base = os.path.basename(name)
    full_names = (name, os.path.splitext(name)[0])
    for key in (*full_names, base, os.path.splitext(base)[0]):
        if key in caption_by_key:
            if key not in full_names and base_name_counts[base] > 1:
                raise DataError(
                    f"Each caption must belong to one image; {key!r} is the name of "
                    f"{base_name_counts[base]} images, for example {name}. Use names with "
                    "folders in the caption files."
                )
            return caption_by_key[key]
    return ""


def _embed(
    captions: list[str], encoder: TextEncoder, batch_size: int, bar: tqdm
) -> Iterator[EmbeddedCaption]:
    """Embed the captions of a shard.

    The batches start with the shard, so that it has the same bytes whenever it is written.
    """
    empty = np.zeros((0, encoder.channels), captioned.TEXT_DTYPE)
    for first in range(0, len(captions), batch_size):
        batch = captions[first : first + batch_size]
        not_empty = [caption for caption in batch if caption]
        vectors = iter(encoder.embed(not_empty) if not_empty else ())
        for caption in batch:
            if caption:
                stored = imported_captions.to_storage_dtype(next(vectors))
                yield EmbeddedCaption(caption, stored)
            else:
                yield EmbeddedCaption("", empty)
            bar.update()
