"""Read the caption files of common datasets: one text per image name."""

import collections
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from ul.core import files, text_files
from ul.core.errors import DataError
from ul.core.files import display_name
from ul.importing import archives

FORMATS = (
    "a .tsv file with lines `file<TAB>caption`, a .jsonl file of {file_name, text or caption}, "
    "a .json file of COCO, or a folder or .tar file with a .txt file beside each image"
)


def read_captions(path: str) -> dict[str, str]:
    """Return the captions by image name, as the file has it; the first one per image.

    Raises:
      DataError: the file has none of FORMATS, or a line of it has not.
    """
    suffix = os.path.splitext(path)[1].lower()
    readers = {".tsv": _read_table, ".jsonl": _read_json_lines, ".json": _read_coco}
    if os.path.isdir(path) or suffix == ".tar":
        pairs = _read_text_files(path)
    elif suffix in readers:
        pairs = readers[suffix](path)
    else:
        got = f"a {suffix} file" if suffix else "a file without a suffix"
        raise DataError(f"--captions {path} must be {FORMATS}; got {got}.")
    captions: dict[str, str] = {}
    for name, caption in pairs:
        if caption and not captions.get(name):
            captions[name] = " ".join(caption.split())
    if not captions:
        raise DataError(f"--captions {path} has no captions; it must be {FORMATS}.")
    return captions


def _read_text(path: str) -> str:
    return text_files.read(path, f"--captions {path}")


def _text_of(value: Any) -> str:
    """Return the caption that a JSON value stands for; "" for none.

    A list holds several captions, of which the first is used; null and NaN are none.

    Raises:
      TypeError: the value is something else.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, list):
        return next((text for text in map(_text_of, value) if text), "")
    if not isinstance(value, str):
        raise TypeError(f"a caption must be text; got {value!r}")
    return value


def _read_table(path: str) -> Iterator[tuple[str, str]]:
    for number, line in text_files.numbered_lines(_read_text(path)):
        if "\t" not in line:
            raise DataError(
                f"--captions {path}: each line must be `file<TAB>caption`; line {number} has "
                "no tab."
            )
        name, *captions = text_files.split_row(line, "\t")
        yield name.strip(), " ".join(captions)


def _read_json_lines(path: str) -> Iterator[tuple[str, str]]:
    """Read metadata.jsonl of a Hugging Face image folder."""
    for number, line in text_files.numbered_lines(_read_text(path)):
        try:
            row = json.loads(line)
            caption = _text_of(row["text"] if "text" in row else row["caption"])
            name = row["file_name"]
            if not isinstance(name, str):
                raise TypeError(f"file_name must be text; got {name!r}")
        except (ValueError, KeyError, TypeError) as e:
            raise DataError(
                f"--captions {path}: each line must be a JSON object with file_name and text "
                f"or caption; line {number} is not ({e!r})."
            ) from e
        yield name, caption


def _read_coco(path: str) -> Iterator[tuple[str, str]]:
    """Read a file like captions_train2017.json, in the order of the annotation ids."""
    try:
        content = json.loads(_read_text(path))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = sorted(content["annotations"], key=lambda a: a["id"])
        pairs = [(names[a["image_id"]], _text_of(a["caption"])) for a in annotations]
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"--captions {path} must be a COCO file with images and annotations; reading it "
            f"failed: {e!r}"
        ) from e
    return iter(pairs)


def _read_text_files(path: str) -> Iterator[tuple[str, str]]:
    """Read the .txt file of each image, as img2dataset and webdataset write them."""
    entries = archives.iterate_entries(path, collections.Counter())
    for entry in sorted(entries, key=lambda entry: entry.name):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() == ".txt":
            name = f"--captions {path}: {display_name(entry.name)}"
            try:
                content = files.read(entry.read, entry.file)
            except (FileNotFoundError, NotADirectoryError) as e:
                raise DataError(f"{name} cannot be read: {e.strerror or e}") from e
            yield stem, text_files.decode(content, name)
