"""Embed the captions of imported images, or prompts for `ul sample`."""

import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from ul.checkpoints import workdir
from ul.core import files, npz, text_files
from ul.core.errors import ConfigError, DataError
from ul.core.files import write_atomic
from ul.data import record_shards
from ul.data.record_shards import Shard
from ul.data.sources import captioned, imported_captions, imported_images
from ul.data.sources.imported_captions import EmbeddedCaption
from ul.importing import caption_files, writing
from ul.importing.name_matching import NameMatcher

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
    files: Mapping[str, Sequence[str]],
    out: str,
    load_encoder: Callable[[], TextEncoder],
    *,
    batch_size: int,
    shard_examples: int,
    max_missing_fraction: float,
) -> dict:
    """Embed the captions of imported images into the directory `out`; return the manifest.

    `images` is the directory of `ul import_images`; `files` are the caption files of each
    split. An image without a caption gets an empty text of length 0. An interrupted run
    continues: complete shards stay. The encoder, which may be large, is loaded only after
    all captions were read.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """
    with workdir.lock_directory(out):
        store = imported_captions.open_store(out)
        image_store = imported_images.open_store(images)
        image_manifest, _ = image_store.load_manifest({"size", "classes", "digest"})
        names = imported_images.load_names(image_store, image_manifest)
        captions = match_captions(names, files, max_missing_fraction)
        encoder = load_encoder()
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


def summarize(manifest: dict) -> str:
    """Return a summary of embedded captions for users, one line per split."""
    lines = []
    for split, about in manifest["splits"].items():
        size = sum(s["bytes"] for s in about["shards"]) / 2**20
        lines.append(
            f"{split}: {about['count']} captions (empty: {about['empty']}; with all "
            f"{manifest['tokens']} tokens, possibly truncated: {about['full']}), "
            f"{size:.1f} MiB"
        )
    lines.append(f"channels {manifest['channels']}; digest {manifest['digest'][:16]}")
    return "\n".join(lines)


def read_prompts(path: str) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
      DataError: the file cannot be read or is blank.
    """
    text = text_files.read(path, f"--prompts {path}")
    prompts = [" ".join(line.split()) for _, line in text_files.numbered_lines(text)]
    if not prompts:
        raise DataError(
            f"--prompts {path} must have one prompt per line; the file is empty."
        )
    return prompts


def write_prompt_embeddings(
    prompts: Sequence[str], encoder: TextEncoder, out: str
) -> None:
    """Embed prompts into an .npz file for `ul sample`.

    Raises:
      StorageError: the .npz file cannot be written.
    """
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
        with npz.opened(path) as data:
            condition = {name: data[name] for name in ("text", "text_length")}
            prompts, encoder = data["caption"].tolist(), str(data["encoder"])
    except npz.UNREADABLE as e:
        raise DataError(
            f"{path} must be an .npz file of python -m ul embed_captions --prompts; reading it "
            f"failed: {files.numpy_reason(e)}"
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
    names: dict[str, list[str]],
    files: Mapping[str, Sequence[str]],
    max_missing_fraction: float,
) -> dict[str, list[str]]:
    """Return the caption of each named image of each split, "" for none.

    `files` are the caption files of each split. If several files have an image, the first
    one decides. A file that two splits share must tell their images apart.

    Raises:
      DataError: too many images have no caption, or a caption fits several images.
    """
    captions = {split: _match_split(names, files, split) for split in names}
    missing = [
        name
        for split, own in names.items()
        for name, caption in zip(own, captions[split], strict=True)
        if not caption
    ]
    num_images = sum(map(len, names.values()))
    if missing:
        log.warning(
            "%d of %d images have no caption, for example %s",
            len(missing),
            num_images,
            missing[0],
        )
    if len(missing) > max_missing_fraction * num_images:
        listed = dict.fromkeys(file for own in files.values() for file in own)
        raise DataError(
            f"At most a fraction {max_missing_fraction} of the images may lack a caption in "
            f"{', '.join(listed)}; {len(missing)} of {num_images} images have no caption, "
            f"for example {missing[0]}. Add their captions, or raise --max_missing_fraction "
            "to give them empty text."
        )
    return captions


def _match_split(
    names: dict[str, list[str]], files: Mapping[str, Sequence[str]], split: str
) -> list[str]:
    captions = [""] * len(names[split])
    for path in files[split]:
        sharing = [name for s, own in names.items() if path in files[s] for name in own]
        own = caption_files.read_captions(path)
        matcher = NameMatcher(
            own,
            sharing,
            noun="caption",
            source=path,
            advice=", or a file of its own for the held-out images (--eval_captions)",
        )
        log.info("%s has captions of %d images", path, len(own))
        for i, name in enumerate(names[split]):
            captions[i] = captions[i] or matcher.find(name) or ""
    return captions


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
