import io

import numpy as np
import pytest
from PIL import Image

from ul.train import image_grids, writer


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_has_a_clip_a_row_and_frames_in_order(tmp_path, channels):
    found = noise(2, 5, 4, 6, channels)
    writer.save_png(tmp_path / "s.png", image_grids.strip(found, (0, 2, 4), 2))
    with Image.open(tmp_path / "s.png") as image:
        read = np.asarray(image).reshape(image.height, image.width, channels)
    assert read.shape == (2 * (2 * 5 + 1), 2 * (3 * 7 + 1), channels)
    small = read[::2, ::2]
    for row in range(2):
        for column, t in enumerate((0, 2, 4)):
            top, left = 5 * row + 1, 7 * column + 1
            part = small[top : top + 4, left : left + 6]
            np.testing.assert_array_equal(part, found[row, t])


@pytest.mark.parametrize(
    ("fps", "duration", "channels"), [(8, 120, 1), (25, 40, 3), (500, 20, 1)]
)
def test_a_gif_moves(fps, duration, channels):
    """Five clips in a square of three; grey levels to the last, few colours too."""
    found = noise(5, 4, 6, 6, channels)
    found &= 0xFF if channels == 1 else 0xC0  # 64 colours
    with Image.open(io.BytesIO(image_grids.gif(found, fps))) as image:
        assert image.n_frames == 4 and image.info["loop"] == 0
        for t in range(4):
            image.seek(t)
            assert image.info["duration"] == duration
            sheet = np.asarray(image.convert("RGB"))
            assert sheet.shape == (2 * 7 + 1, 3 * 7 + 1, 3)
            for i in range(5):
                top, left = 7 * (i // 3) + 1, 7 * (i % 3) + 1
                part = sheet[top : top + 6, left : left + 6]
                want = np.broadcast_to(found[i, t], part.shape)
                np.testing.assert_array_equal(part, want)
