"""Read the text files of users: captions, prompts, labels.

Spreadsheets and editors write UTF-8 with or without a byte-order mark, or UTF-16 with one.
Other encodings cannot be recognized, so they are refused.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator

from etils import epath

from ul.core import files
from ul.core.errors import DataError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(content: bytes, name: str) -> str:
    """Return the text of a file, with the line ends of Unix. name: as messages call it.

    Raises:
      DataError: the file is neither UTF-8 nor UTF-16 with a byte-order mark.
    """
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise DataError(
            f"{name} must be text in UTF-8; line {line} is not ({e.reason}). Convert it, "
            "for example with iconv -f latin1 -t utf-8."
        ) from e
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read(path: epath.PathLike, name: str) -> str:
    """Return the text of a file, as `decode` does.

    Raises:
      DataError: there is no such file, or it has another encoding.
      StorageError: the storage fails.
    """
    try:
        content = files.read_bytes(epath.Path(path))
    except (FileNotFoundError, NotADirectoryError) as e:
        raise DataError(f"{name} cannot be read: {e.strerror or e}") from e
    return decode(content, name)


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1.

    Captions may contain the other characters at which str.splitlines splits.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def split_row(line: str, delimiter: str) -> list[str]:
    """Return the fields of a line; quoted fields may contain the delimiter.

    In tables of captions a quotation mark may also be part of the text, so quotes count
    only if they enclose a whole field.
    """
    if '"' not in line:
        return line.split(delimiter)
    try:
        fields = next(csv.reader(io.StringIO(line), delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration):  # such as `"Yes" he said`
        return [unquote(field) for field in line.split(delimiter)]
    return fields


def unquote(field: str) -> str:
    """Return a field without the quotes that enclose it; "" in it stands for one quote."""
    match = re.fullmatch(r'\s*"((?:[^"]|"")*)"\s*', field)
    return match[1].replace('""', '"') if match else field
