"""Files that are whole or not there, and digests of files."""

import hashlib

from etils import epath

from ul.core.errors import StorageError

BLOCK = 2**22


def write_atomic(path: epath.Path, text: str) -> None:
    """The whole file or none of it."""
    part = path.parent / f".{path.name}.part"
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e


def sha256(path: epath.Path) -> str:
    """Of a file, read in blocks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
