"""Embedded captions of imported images: shards (shards.py) beside those of the images.

Record i of a split belongs to image i of that split: i (int64), the number of tokens and of
the caption's bytes (int32, little-endian), the caption in UTF-8, then a float16 vector a
token. What pads them to one length is not stored.
"""

import dataclasses
import hashlib
import struct
from collections.abc import Iterable

import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError, NonFiniteError
from ul.data import record_shards
from ul.data.record_shards import Shard, Store
from ul.data.sources import imported_images
from ul.data.sources.basic import Example, Items, Shape

HEAD = struct.Struct("<qii")
DTYPE = np.dtype("<f2")


@dataclasses.dataclass(frozen=True)
class Text:
    """A caption and its tokens' vectors, float16 [length, channels]; length 0: no text."""

    caption: str
    vectors: np.ndarray


def store(where: epath.PathLike) -> Store:
    """The embedded captions at `where`, there or to be written."""
    return Store(epath.Path(where), "set of captions", "launch.embed_captions")


def stored(vectors: np.ndarray) -> np.ndarray:
    """float32 vectors as they are kept.

    Raises:
      NonFiniteError: they are not finite. ConfigError: float16 cannot hold them.
    """
    if not np.isfinite(vectors).all():
        raise NonFiniteError("the text encoder's vectors are not finite")
    with np.errstate(over="ignore"):  # said below
        kept = vectors.astype(DTYPE)
    if not np.isfinite(kept).all():
        raise ConfigError(
            f"float16 cannot hold the text encoder's vectors of up to "
            f"{np.abs(vectors).max():.4g}; choose an encoder whose output is normed"
        )
    return kept


def write(to: Store, shard: Shard, texts: Iterable[Text], tokens: int) -> dict:
    """One shard of texts, in order; its record. Raises as Store.write."""
    lengths: list[int] = []

    def records():
        for i, text in enumerate(texts, shard.first):
            said, length = text.caption.encode(), len(text.vectors)
            lengths.append(length)
            yield HEAD.pack(i, length, len(said)) + said + text.vectors.tobytes()

    def about() -> dict:
        return {"empty": lengths.count(0), "full": lengths.count(tokens)}

    return to.write(shard, records(), about)


def finish(to: Store, identity: dict, records: list[dict]) -> dict:
    """Write the manifest of shards that all are there, in their order; the manifest."""
    splits = {}
    for split, about in identity["splits"].items():
        own = [r for r in records if r["file"].startswith(f"{split}-")]
        splits[split] = about | {
            "empty": sum(r["empty"] for r in own),
            "full": sum(r["full"] for r in own),
            "shards": [
                {k: r[k] for k in ("file", "count", "bytes", "sha256")} for r in own
            ],
        }
    digests = "".join(r["sha256"] for r in records)
    digest = hashlib.sha256(digests.encode()).hexdigest()
    manifest = identity | {"splits": splits, "digest": digest}
    to.finish(manifest)
    return manifest


def unlike(there: dict, here: dict) -> list[str]:
    """What of two sets' identities differs, one phrase each."""

    def flat(identity: dict) -> dict:
        found = {k: v for k, v in identity.items() if k not in ("encoder", "splits")}
        found |= {f"encoder {k}": v for k, v in identity.get("encoder", {}).items()}
        for split, about in identity.get("splits", {}).items():
            found |= {f"{split} {k}": v for k, v in about.items()}
        return found

    a, b = flat(there), flat(here)
    return [f"{k}: {a.get(k)} there, {v} here" for k, v in b.items() if a.get(k) != v]


class Texts:
    """One split's texts by number, whole and undamaged."""

    def __init__(self, data: Store, manifest: dict, split: str):
        self._records = record_shards.Records(data, manifest, split)
        self._channels = manifest["channels"]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> Text:
        record = self._records[i]
        index, length, size = HEAD.unpack_from(record.ljust(HEAD.size, b"\xff"))
        begin = HEAD.size + size
        whole = begin + length * self._channels * DTYPE.itemsize
        if index != i or len(record) != whole:
            raise self._records.damaged(i, "is another")
        vectors = np.frombuffer(record, DTYPE, offset=begin)
        return Text(
            record[HEAD.size : begin].decode(), vectors.reshape(length, self._channels)
        )


class Captioned:
    """Images with their texts: item i has `text` float16 [tokens, channels], padded with
    zeros, and `text_length`."""

    def __init__(self, pictures: Items, texts: Texts, text_shape: tuple[int, int]):
        self._pictures, self._texts, self.text_shape = pictures, texts, text_shape
        self.num_classes = pictures.num_classes

    def __len__(self) -> int:
        return len(self._pictures)

    def caption(self, i: int) -> str:
        """What image i is called; "" where it has no caption."""
        return self._texts[i].caption

    def told(self, i: int) -> Example:
        """Image i's caption, embedded."""
        vectors = self._texts[i].vectors
        text = np.zeros(self.text_shape, DTYPE)
        text[: len(vectors)] = vectors
        return {"text": text, "text_length": np.int32(len(vectors))}

    def picture(self, i: int) -> Example:
        """Image i and its label; no text is read."""
        return self._pictures[i]

    def __getitem__(self, i) -> Example:
        return self.picture(int(i)) | self.told(int(i))


def imported_captions(
    split: str, shape: Shape, *, path: str, captions: str
) -> Captioned:
    """A split that launch.import_images wrote, with what launch.embed_captions wrote of it.

    Raises:
      DataError: as `images.items`; captions that are not there, damaged or of other
        images.
    """
    pictures, of = (
        imported_images.items(split, shape, path=path),
        imported_images.store(path),
    )
    digest = of.load({"digest"})[0]["digest"]
    data = store(captions)
    manifest, _ = data.load({"images", "tokens", "channels"})
    if manifest["images"] != digest:
        raise DataError(
            f"data.source.captions {captions} are of the images {manifest['images'][:16]}, "
            f"but data.source.path {path} holds {digest[:16]}; embed again, into another "
            "directory"
        )
    data.verify(manifest, part=None)
    texts = Texts(data, manifest, split)
    return Captioned(pictures, texts, (manifest["tokens"], manifest["channels"]))
