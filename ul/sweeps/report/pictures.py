"""Images as data URIs, so that a page is one file."""

import base64
import io

from etils import epath
from PIL import Image

from ul.core.errors import DataError

# A sheet of samples of large images is shrunk to this before it goes into the page.
MOST_BYTES = 400_000
MOST_WIDE = 1200


def of_png(content: bytes) -> str:
    return _uri("png", content)


def of_file(path) -> str:
    """A PNG file as it is, or shrunk as a JPEG if it is large.

    Raises:
      DataError: it is not there, or no picture.
    """
    try:
        content = epath.Path(path).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if image.format != "PNG":
                raise DataError(f"{path} is no PNG")
            image.load()
            if len(content) <= MOST_BYTES:
                return of_png(content)
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"{path} cannot be read as a picture: {e}") from e
    small.thumbnail((MOST_WIDE, 4 * MOST_WIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    return _uri("jpeg", out.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
