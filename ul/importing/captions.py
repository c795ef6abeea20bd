"""Embed the captions of imported images and write them beside the images."""

import collections
import dataclasses
import hashlib
import io
import json
import logging
import os
import sys
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
from ul.data.record_shards import Shard, Store
from ul.data.sources import imported_captions, imported_images
from ul.data.sources.imported_captions import Text
from ul.importing import caption_files

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """embed(captions) -> a float32 [length, channels] of each, at most `tokens` long.

    identity: what says that two encoders give the same: names and digests.
    """

    embed: Callable[[Sequence[str]], list[np.ndarray]]
    channels: int
    tokens: int
    identity: dict[str, Any]


def captions_of(
    image_set: str,
    files: Sequence[str],
    where: str,
    encoder: TextEncoder,
    *,
    batch_size: int,
    shard_examples: int,
    max_missing_fraction: float,
) -> dict:
    """Embed the captions in `files` of all images of a set, or go on with it; the manifest.

    An image without a caption has empty text, of length 0. Shards that are whole stay.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    with workdir.lock_directory(where):
        to, of = imported_captions.store(where), imported_images.store(image_set)
        found, _ = of.load({"size", "classes", "digest"})
        said = matched(imported_images.names(of, found), files, max_missing_fraction)
        identity = {
            "images": found["digest"],
            "shard_examples": shard_examples,
            "encoder": encoder.identity,
            "tokens": encoder.tokens,
            "channels": encoder.channels,
            "dtype": "float16",
            "splits": {s: _identity(captions) for s, captions in said.items()},
        }
        to.begin(identity, imported_captions.unlike)
        records = _shards(to, said, encoder, shard_examples, batch_size)
        return imported_captions.finish(to, identity, records)


def embed_prompts(lines: str, encoder: TextEncoder, out: str) -> int:
    """The captions in a file, one a line, as an .npz for launch.sample; their number.

    Raises:
      DataError: the file cannot be read, or says nothing. StorageError: the disk refuses.
    """
    try:
        said = [" ".join(line.split()) for line in open(lines, encoding="utf-8-sig")]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--prompts {lines} cannot be read: {e}") from e
    said = [caption for caption in said if caption]
    if not said:
        raise DataError(f"--prompts {lines} has no line that says something")
    text = np.zeros(
        (len(said), encoder.tokens, encoder.channels), imported_captions.DTYPE
    )
    length = np.zeros(len(said), np.int32)
    for i, caption in enumerate(tqdm(said, unit="caption", desc="embed")):
        vectors = imported_captions.stored(encoder.embed([caption])[0])
        text[i, : len(vectors)], length[i] = vectors, len(vectors)
    content = io.BytesIO()
    np.savez(
        content,
        text=text,
        text_length=length,
        caption=np.asarray(said),
        encoder=np.asarray(_canonical(encoder.identity)),
    )
    write_atomic(epath.Path(out), content.getvalue())
    return len(said)


def _canonical(identity: dict) -> str:
    return json.dumps(identity, sort_keys=True)


def read_prompts(
    path: str, source: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What `embed_prompts` wrote: the condition of a text model, and the captions.

    `source`: the model's data.source; where its captions are at hand, their encoder must
    be the one of the file.

    Raises:
      DataError: it is no such file. ConfigError: another encoder made it.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in ("text", "text_length")}
            said, encoder = data["caption"].tolist(), str(data["encoder"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(
            f"{path} is no .npz of launch.embed_captions --prompts: {e}"
        ) from e
    if source["kind"] == "imported_captions":
        try:
            manifest, _ = imported_captions.store(source["captions"]).load({"encoder"})
        except DataError as e:
            log.warning("which text encoder it must be cannot be checked: %s", e)
        else:
            if (wanted := _canonical(manifest["encoder"])) != encoder:
                raise ConfigError(
                    f"{path} was made by another text encoder ({encoder}) than the model's "
                    f"captions ({wanted})"
                )
    return found, said


def _identity(captions: list[str]) -> dict:
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return {"count": len(captions), "captions": digest[:16]}


def matched(
    names: dict[str, list[str]], files: Sequence[str], most: float
) -> dict[str, list[str]]:
    """The caption of each image, "" for none.

    Raises:
      DataError: too many have none, or one might have another's.
    """
    captions: dict[str, str] = {}
    for path in files:
        read = caption_files.read(path)
        captions = read | captions  # the first file's, of several
        log.info("%s: captions of %d images", path, len(read))
    every = [name for split in names.values() for name in split]
    alike = collections.Counter(os.path.basename(name) for name in every)
    said = {s: [_caption(name, captions, alike) for name in split]
            for s, split in names.items()}  # fmt: skip
    without = [
        n for s in names for n, c in zip(names[s], said[s], strict=True) if not c
    ]
    if without:
        log.warning("%d of %d images have no caption, the first %s",
                    len(without), len(every), without[0])  # fmt: skip
    if len(without) > most * len(every):
        raise DataError(
            f"{len(without)} of {len(every)} images have no caption in {', '.join(files)}, "
            f"the first {without[0]}; add them, or raise --max_missing_fraction ({most}): "
            "they count as empty text"
        )
    return said


def _caption(name: str, captions: dict[str, str], alike: collections.Counter) -> str:
    """By its whole name, by the file's alone, or those without their suffix."""
    base = os.path.basename(name)
    for key in (name, os.path.splitext(name)[0], base, os.path.splitext(base)[0]):
        if key in captions:
            if key not in (name, os.path.splitext(name)[0]) and alike[base] > 1:
                raise DataError(
                    f"the captions say something of {key!r}, and {alike[base]} images are "
                    f"called so, as {name}; give their names with the folders"
                )
            return captions[key]
    return ""


def _shards(
    to: Store, said: dict[str, list[str]], encoder: TextEncoder, size: int, batch: int
) -> list[dict]:
    """Records of all shards in their order; those that are missing are written."""
    every = record_shards.plan({s: len(captions) for s, captions in said.items()}, size)
    records = {shard: to.finished(shard) for shard in every}
    missing = [shard for shard in every if records[shard] is None]
    log.info("%d of %d shards are there", len(every) - len(missing), len(every))
    with tqdm(
        total=sum(shard.count for shard in missing),
        unit="caption",
        desc="embed",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    ) as bar:
        for shard in missing:
            part = _part(shard, said)
            made = _embedded(part, encoder, batch, bar)
            records[shard] = imported_captions.write(to, shard, made, encoder.tokens)
    return [record for record in records.values() if record is not None]


def _part(shard: Shard, said: dict[str, list[str]]) -> list[str]:
    return said[shard.split][shard.first : shard.first + shard.count]


def _embedded(
    captions: list[str], encoder: TextEncoder, batch: int, bar: tqdm
) -> Iterator[Text]:
    """In batches that begin with the shard: the same whenever it is written."""
    none = np.zeros((0, encoder.channels), imported_captions.DTYPE)
    for first in range(0, len(captions), batch):
        part = captions[first : first + batch]
        told = [caption for caption in part if caption]
        vectors = iter(encoder.embed(told) if told else ())
        for caption in part:
            made = imported_captions.stored(next(vectors)) if caption else none
            yield Text(caption, made)
            bar.update()
