"""Captions as data sets have them: one text of each named image."""

import json
import os
from collections.abc import Iterator

from ul.core.errors import DataError
from ul.importing import archives

FORMS = (
    "a .tsv of `file<TAB>caption`, a .jsonl of {file_name, text or caption}, a .json of COCO, "
    "or a folder or tar with a .txt of the same name beside each image"
)


def read(path: str) -> dict[str, str]:
    """Caption by image name, whole as the file has it. Of several the first is taken.

    Raises:
      DataError: it is none of FORMS, or has a line that is not.
    """
    suffix = os.path.splitext(path)[1].lower()
    lines = {".tsv": _table, ".jsonl": _json_lines, ".json": _coco}
    if os.path.isdir(path) or suffix == ".tar":
        pairs = _beside(path)
    elif suffix in lines:
        pairs = lines[suffix](path)
    else:
        raise DataError(f"captions {path}: they must be {FORMS}")
    found: dict[str, str] = {}
    for name, caption in pairs:
        found.setdefault(name, " ".join(caption.split()))
    if not found:
        raise DataError(f"captions {path} has none; they must be {FORMS}")
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"captions {path} cannot be read: {e}") from e


def _table(path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab:
            raise DataError(f"captions {path}: line {number} has no tab after the name")
        yield name.strip(), caption


def _json_lines(path: str) -> Iterator[tuple[str, str]]:
    """As Hugging Face's image folders have it: metadata.jsonl."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            said = found["text"] if "text" in found else found["caption"]
            pair = str(found["file_name"]), str(said)
        except (ValueError, KeyError, TypeError) as e:
            raise DataError(
                f"captions {path}: line {number} has no file_name with text or caption "
                f"({e!r})"
            ) from e
        yield pair


def _coco(path: str) -> Iterator[tuple[str, str]]:
    """captions_train2017.json and its like; of one image the lowest annotation id first."""
    try:
        found = json.loads(_text(path))
        names = {image["id"]: image["file_name"] for image in found["images"]}
        said = sorted(found["annotations"], key=lambda one: one["id"])
        pairs = [(names[one["image_id"]], one["caption"]) for one in said]
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"captions {path} is no COCO file of images and annotations ({e!r})"
        ) from e
    return iter(pairs)


def _beside(path: str) -> Iterator[tuple[str, str]]:
    """A .txt of the image's name, as img2dataset and webdataset leave them."""
    for entry in sorted(archives.entries(path), key=lambda entry: entry.name):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() == ".txt":
            try:
                yield stem, entry.read().decode()
            except (OSError, UnicodeDecodeError) as e:
                raise DataError(
                    f"captions {path}: {entry.name} cannot be read: {e}"
                ) from e
