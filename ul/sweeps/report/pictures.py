"""Encode images as data URIs, so that the page is a single file."""

import base64
import io

from etils import epath

from ul.core.errors import DataError
from ul.data import image_files

# A larger file is shrunk and becomes a JPEG.
MAX_BYTES = 400_000
MAX_WIDTH = 1200


def png_data_uri(content: bytes) -> str:
    """Return the content of a PNG file as a data URI."""
    return _data_uri("png", content)


def file_data_uri(path) -> str:
    """Return a PNG file as a data URI; a large one is shrunk and becomes a JPEG.

    Raises:
      DataError: the file does not exist, or is not a PNG image.
    """
    try:
        content = epath.Path(path).read_bytes()
        with image_files.open_image(io.BytesIO(content), ("PNG",)) as image:
            image.load()
            if len(content) <= MAX_BYTES:
                return png_data_uri(content)
            small = image.convert("RGB")
    except image_files.UNREADABLE as e:
        raise DataError(
            f"{path} must be a PNG image, but cannot be read: {e}. Run python -m ul evaluate "
            "again to write it."
        ) from e
    small.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    return _data_uri("jpeg", out.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
