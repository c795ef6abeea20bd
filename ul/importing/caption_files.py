"""Read the caption files of common datasets: one text per image name."""

import json
import os
from collections.abc import Iterator

from ul.core.errors import DataError
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
        captions.setdefault(name, " ".join(caption.split()))
    if not captions:
        raise DataError(f"--captions {path} has no captions; it must be {FORMATS}.")
    return captions


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--captions {path} cannot be read: {e}") from e


def _numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not blank, with their numbers from 1."""
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line


def _read_table(path: str) -> Iterator[tuple[str, str]]:
    for number, line in _numbered_lines(path):
        name, tab, caption = line.partition("\t")
        if not tab:
            raise DataError(
                f"--captions {path}: each line must be `file<TAB>caption`; line {number} has "
                "no tab."
            )
        yield name.strip(), caption


def _read_json_lines(path: str) -> Iterator[tuple[str, str]]:
    """Read metadata.jsonl of a Hugging Face image folder."""
    for number, line in _numbered_lines(path):
        try:
            row = json.loads(line)
            caption = row["text"] if "text" in row else row["caption"]
            pair = str(row["file_name"]), str(caption)
        except (ValueError, KeyError, TypeError) as e:
            raise DataError(
                f"--captions {path}: each line must be a JSON object with file_name and text "
                f"or caption; line {number} is not ({e!r})."
            ) from e
        yield pair


def _read_coco(path: str) -> Iterator[tuple[str, str]]:
    """Read a file like captions_train2017.json, in the order of the annotation ids."""
    try:
        content = json.loads(_read_text(path))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = sorted(content["annotations"], key=lambda a: a["id"])
        pairs = [(names[a["image_id"]], a["caption"]) for a in annotations]
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"--captions {path} must be a COCO file with images and annotations; reading it "
            f"failed: {e!r}"
        ) from e
    return iter(pairs)


def _read_text_files(path: str) -> Iterator[tuple[str, str]]:
    """Read the .txt file of each image, as img2dataset and webdataset write them."""
    for entry in sorted(archives.iterate_entries(path), key=lambda entry: entry.name):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() == ".txt":
            try:
                yield stem, entry.read().decode()
            except (OSError, UnicodeDecodeError) as e:
                raise DataError(
                    f"--captions {path}: {entry.name} cannot be read: {e}"
                ) from e
