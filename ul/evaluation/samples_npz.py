"""Images as an .npz that the ADM evaluator reads: written while they are made, and read."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from etils import epath

from ul.core.errors import DataError, StorageError
from ul.metrics.extractors import coloured


class Archive:
    """`arr_0` uint8 [N, H, W, 3] in parts, then `arr_1` labels [N]: np.savez's layout."""

    def __init__(self, zipped: zipfile.ZipFile, images: int, shape: tuple[int, ...]):
        self._zip = zipped
        self._labels = [np.zeros(0, np.int32)]
        full = (images, *shape[:-1], max(shape[-1], 3))
        self._arr = self._zip.open(_member("arr_0"), "w", force_zip64=True)
        _header(self._arr, full, np.dtype(np.uint8))

    def add(self, image: np.ndarray, label: np.ndarray) -> None:
        self._arr.write(np.ascontiguousarray(coloured(image)).tobytes())
        self._labels.append(np.asarray(label, np.int32))

    def finish(self) -> None:
        self._arr.close()
        label = np.concatenate(self._labels)
        with self._zip.open(_member("arr_1"), "w", force_zip64=True) as f:
            _header(f, label.shape, label.dtype)
            f.write(label.tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    # A fixed date: the same samples give the same file.
    return zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))


def _header(f, shape: tuple[int, ...], dtype: np.dtype) -> None:
    described = np.lib.format.dtype_to_descr(dtype)
    about = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(f, about)


@contextlib.contextmanager
def writing(path: str, images: int, shape: tuple[int, ...]) -> Iterator[Archive]:
    """An archive of so many images [H, W, C]; the file is there once all of them are.

    Raises:
      StorageError: it cannot be written.
    """
    where = epath.Path(path)
    part = where.parent / f".{where.name}.part"
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as f, zipfile.ZipFile(f, "w") as zipped:
            archive = Archive(zipped, images, shape)
            try:
                yield archive
            finally:
                archive.finish()
        part.replace(where)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e


class Reader:
    """`arr_0` of an .npz, uint8 [N, H, W, C], read in parts."""

    def __init__(self, path: str):
        """Raises DataError where there is no such file or it holds other things."""
        self._path = path
        with self._member() as member:
            self.shape = _read_header(path, member)

    @contextlib.contextmanager
    def _member(self) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self._path) as zipped, zipped.open("arr_0.npy") as f:
                yield f
        except (OSError, EOFError, KeyError, ValueError) as e:
            raise DataError(f"{self._path} cannot be read as samples: {e}") from e
        except (zipfile.BadZipFile, zlib.error) as e:
            raise DataError(f"{self._path} is damaged or no .npz: {e}") from e

    def parts(self, rows: int) -> Iterator[np.ndarray]:
        """The images in order, `rows` at a time."""
        count, *image = self.shape
        with self._member() as member:
            _read_header(self._path, member)
            for first in range(0, count, rows):
                shape = (min(rows, count - first), *image)
                content = member.read(int(np.prod(shape)))
                yield np.frombuffer(content, np.uint8).reshape(shape)


def _read_header(path: str, member: IO[bytes]) -> tuple[int, ...]:
    """The shape in an .npy member's header; its array is read next."""
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, by_columns, kind = read[version](member)
    if kind != np.uint8 or len(shape) != 4 or by_columns:
        raise DataError(f"arr_0 of {path} is {kind} {shape}, not uint8 [N, H, W, C]")
    return shape
