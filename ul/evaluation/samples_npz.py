"""Samples as an .npz that the ADM evaluator reads: written and read in batches."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from etils import epath

from ul.core import files
from ul.core.errors import DataError
from ul.metrics.extractors import to_rgb


class SamplesWriter:
    """Writes `arr_0` uint8 [N, H, W, 3] in batches, then `arr_1` labels [N], as np.savez."""

    def __init__(self, archive: zipfile.ZipFile, count: int, shape: tuple[int, ...]):
        self._archive = archive
        self._labels = [np.zeros(0, np.int32)]
        full_shape = (count, *shape[:-1], max(shape[-1], 3))
        self._images = self._archive.open(_member("arr_0"), "w", force_zip64=True)
        _write_header(self._images, full_shape, np.dtype(np.uint8))

    def add(self, image: np.ndarray, label: np.ndarray) -> None:
        """Write the next images, uint8 [N, H, W, C], and keep their labels [N]."""
        self._images.write(np.ascontiguousarray(to_rgb(image)).tobytes())
        self._labels.append(np.asarray(label, np.int32))

    def finish(self) -> None:
        """Write the labels."""
        self._images.close()
        label = np.concatenate(self._labels)
        with self._archive.open(_member("arr_1"), "w", force_zip64=True) as f:
            _write_header(f, label.shape, label.dtype)
            f.write(label.tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    # With a fixed date the same samples give the same file.
    return zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))


def _write_header(f: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_2_0(f, header)


@contextlib.contextmanager
def open_writer(
    path: str, count: int, shape: tuple[int, ...]
) -> Iterator[SamplesWriter]:
    """Open a writer of `count` images [H, W, C]. The file appears when it is complete.

    Raises:
      StorageError: it cannot be written.
    """
    target = epath.Path(path)
    partial = target.parent / f".{target.name}.part"
    files.make_directory(target.parent)
    try:
        with (
            files.write(lambda: partial.open("wb"), path) as f,
            zipfile.ZipFile(f, "w") as archive,
        ):
            writer = SamplesWriter(archive, count, shape)
            try:
                yield writer
            finally:
                writer.finish()
    except OSError as e:
        raise files.write_error(path, e) from e
    files.write(lambda: partial.replace(target), path)


class SamplesReader:
    """Reads `arr_0` of an .npz, uint8 [N, H, W, C], in batches."""

    def __init__(self, path: str):
        """Read the shape. Raises DataError for a missing file or one with other content."""
        self._path = path
        with self._images() as images:
            self.shape = _read_header(path, images)

    @contextlib.contextmanager
    def _images(self) -> Iterator[IO[bytes]]:
        try:
            path = epath.Path(self._path)
            with (
                files.read(lambda: path.open("rb"), path) as f,
                zipfile.ZipFile(f) as archive,
                archive.open("arr_0.npy") as images,
            ):
                yield images
        except (
            FileNotFoundError,
            NotADirectoryError,
            EOFError,
            KeyError,
            ValueError,
        ) as e:
            raise DataError(f"{self._path} cannot be read as samples: {e}") from e
        except (zipfile.BadZipFile, zlib.error) as e:
            raise DataError(f"{self._path} is damaged or not an .npz: {e}") from e
        except OSError as e:
            raise files.read_error(self._path, e) from e

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Yield the images in order."""
        count, *image_shape = self.shape
        with self._images() as images:
            _read_header(self._path, images)
            for first in range(0, count, batch_size):
                shape = (min(batch_size, count - first), *image_shape)
                content = images.read(int(np.prod(shape)))
                yield np.frombuffer(content, np.uint8).reshape(shape)


def _read_header(path: str, images: IO[bytes]) -> tuple[int, ...]:
    """The shape in the header of an .npy member; its array is read next."""
    version = np.lib.format.read_magic(images)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran_order, dtype = read[version](images)
    if dtype != np.uint8 or len(shape) != 4 or fortran_order:
        raise DataError(
            f"arr_0 of {path} must be uint8 [N, H, W, C] in C order; got {dtype} "
            f"{list(shape)}{' in Fortran order' if fortran_order else ''}."
        )
    return shape
