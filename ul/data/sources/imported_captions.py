"""Embedded captions of imported images, in record shards of their own.

Record i of a split belongs to image i of that split: i (int64), the number of tokens and the
number of bytes of the caption (int32, little-endian), the caption in UTF-8, then one float16
vector per token. The zeros that pad all texts to one length are not stored.
"""

import dataclasses
import struct
from collections.abc import Iterable

import numpy as np
from etils import epath

from ul.core.errors import DataError
from ul.data import record_shards, storage_dtype
from ul.data.record_shards import RecordReader, Shard, ShardStore
from ul.data.sources import imported_images
from ul.data.sources.base import Example, FunctionSource, Shape
from ul.data.sources.captioned import TEXT_DTYPE, CaptionedSource, pad_text

HEADER = struct.Struct("<qii")


@dataclasses.dataclass(frozen=True)
class EmbeddedCaption:
    """A caption and the vectors of its tokens, float16 [length, channels].

    A missing caption is "" with length 0.
    """

    caption: str
    vectors: np.ndarray


def open_store(path: epath.PathLike) -> ShardStore:
    """Return the captions in the directory `path`, which may still have to be written."""
    return ShardStore(
        epath.Path(path), "set of embedded captions", "python -m ul embed_captions"
    )


def to_storage_dtype(vectors: np.ndarray) -> np.ndarray:
    """Return the float32 vectors of a text encoder as float16.

    Raises:
      NonFiniteError: a vector has NaN or infinity.
      ConfigError: float16 cannot hold the vectors.
    """
    return storage_dtype.cast_to_storage(
        vectors,
        TEXT_DTYPE,
        name="The vectors of the text encoder",
        if_nonfinite="Check its weights, or try another --compute.",
        if_overflow="Choose a text encoder whose output is normalized.",
    )


def write_shard(
    store: ShardStore, shard: Shard, captions: Iterable[EmbeddedCaption], tokens: int
) -> dict:
    """Write the captions of one shard in order and return its summary.

    Raises:
      StorageError: as `ShardStore.write_shard`.
    """
    lengths: list[int] = []

    def records():
        for i, embedded in enumerate(captions, shard.first):
            caption, length = embedded.caption.encode(), len(embedded.vectors)
            lengths.append(length)
            header = HEADER.pack(i, length, len(caption))
            yield header + caption + embedded.vectors.tobytes()

    def more_fields() -> dict:
        return {"empty": lengths.count(0), "full": lengths.count(tokens)}

    return store.write_shard(shard, records(), more_fields)


def write_manifest(store: ShardStore, identity: dict, summaries: list[dict]) -> dict:
    """Write the manifest of captions whose shards are all written, and return it."""

    def split_fields(own: list[dict]) -> dict:
        return {key: sum(s[key] for s in own) for key in ("empty", "full")}

    manifest = record_shards.build_manifest(identity, summaries, split_fields)
    manifest |= {"digest": record_shards.content_digest(summaries)}
    store.write_manifest(manifest)
    return manifest


def differences(stored: dict, requested: dict) -> list[str]:
    """Return one phrase for each difference between the identities of two caption sets."""

    def flat(identity: dict) -> dict:
        encoder = {f"encoder {k}": v for k, v in identity.get("encoder", {}).items()}
        rest = {k: v for k, v in identity.items() if k not in ("encoder", "splits")}
        return rest | encoder | record_shards.flat_splits(identity)

    return record_shards.differences(flat(stored), flat(requested))


class CaptionReader:
    """The embedded captions of one split by number."""

    def __init__(self, store: ShardStore, manifest: dict, split: str):
        self._records = RecordReader(store, manifest, split)
        self._channels = manifest["channels"]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> EmbeddedCaption:
        record = self._records[i]
        # A record that is too short for a header is padded to one with impossible values.
        index, length, size = HEADER.unpack_from(record.ljust(HEADER.size, b"\xff"))
        start = HEADER.size + size
        num_bytes = start + length * self._channels * TEXT_DTYPE.itemsize
        if index != i or len(record) != num_bytes:
            raise self._records.damage_error(i, "belongs to another caption")
        vectors = np.frombuffer(record, TEXT_DTYPE, offset=start)
        return EmbeddedCaption(
            record[HEADER.size : start].decode(),
            vectors.reshape(length, self._channels),
        )


class CaptionedImages(CaptionedSource):
    """Imported images with their embedded captions."""

    def __init__(
        self,
        images: FunctionSource,
        captions: CaptionReader,
        text_shape: tuple[int, int],
    ):
        self._images, self._captions, self.text_shape = images, captions, text_shape
        self.num_classes, self.report = images.num_classes, images.report

    def __len__(self) -> int:
        return len(self._images)

    def caption(self, i: int) -> str:
        """Return the caption of image i, "" if it has none."""
        return self._captions[i].caption

    def text_condition(self, i: int) -> Example:
        """Return the embedded caption of image i: `text` and `text_length`."""
        return pad_text(self._captions[i].vectors, self.text_shape)

    def labeled_image(self, i: int) -> Example:
        """Return image i and its label without reading its caption."""
        return self._images[i]


def make_source(
    split: str, shape: Shape, *, path: str, captions: str
) -> CaptionedImages:
    """Return a split that `ul import_images` wrote, with captions of `ul embed_captions`.

    Raises:
      DataError: as `imported_images.make_source`; or the captions are missing, damaged, or
        those of other images.
    """
    images = imported_images.make_source(split, shape, path=path)
    image_manifest, _ = imported_images.open_store(path).load_manifest({"digest"})
    digest = image_manifest["digest"]
    store = open_store(captions)
    manifest, _ = store.load_manifest({"images", "tokens", "channels"})
    if manifest["images"] != digest:
        raise DataError(
            f"data.source.captions {captions} must be embedded captions of the images in "
            f"data.source.path {path}, whose digest is {digest[:16]}; they are of images "
            f"with digest {manifest['images'][:16]}. Embed the captions again, into another "
            "directory."
        )
    store.verify(manifest, part=None)
    reader = CaptionReader(store, manifest, split)
    return CaptionedImages(images, reader, (manifest["tokens"], manifest["channels"]))
