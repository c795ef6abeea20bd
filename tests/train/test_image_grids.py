import io

import numpy as np
import pytest
from PIL import Image

from ul.train import image_grids, writer


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_tiles_are_placed_row_by_row():
    images = np.stack([np.full((2, 3, 1), i, np.uint8) for i in (10, 20, 30)])
    sheet = image_grids.tile_images(images, 2, scale=2)
    assert sheet.shape == (2 * 7, 2 * 9, 1)
    assert sheet[2, 2, 0] == 10 and sheet[2, 10, 0] == 20 and sheet[8, 2, 0] == 30


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_has_one_clip_per_row_and_frames_in_order(tmp_path, channels):
    clips = noise(2, 5, 4, 6, channels)
    strip = image_grids.draw_strip(clips, (0, 2, 4), 2)
    writer.save_png(tmp_path / "s.png", strip)
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image).reshape(image.height, image.width, channels)
    assert pixels.shape == (2 * (2 * 5 + 1), 2 * (3 * 7 + 1), channels)
    unscaled = pixels[::2, ::2]
    for row in range(2):
        for column, t in enumerate((0, 2, 4)):
            top, left = 5 * row + 1, 7 * column + 1
            tile = unscaled[top : top + 4, left : left + 6]
            np.testing.assert_array_equal(tile, clips[row, t])


@pytest.mark.parametrize(
    ("fps", "duration", "channels"), [(8, 120, 1), (25, 40, 3), (500, 20, 1)]
)
def test_a_gif_shows_every_frame_exactly(fps, duration, channels):
    """Five clips in a square of three by three, with all gray levels or few colors."""
    clips = noise(5, 4, 6, 6, channels)
    clips &= 0xFF if channels == 1 else 0xC0  # 64 colors
    with Image.open(io.BytesIO(image_grids.encode_gif(clips, fps))) as image:
        assert image.n_frames == 4 and image.info["loop"] == 0
        for t in range(4):
            image.seek(t)
            assert image.info["duration"] == duration
            sheet = np.asarray(image.convert("RGB"))
            assert sheet.shape == (2 * 7 + 1, 3 * 7 + 1, 3)
            for i in range(5):
                top, left = 7 * (i // 3) + 1, 7 * (i % 3) + 1
                tile = sheet[top : top + 6, left : left + 6]
                expected = np.broadcast_to(clips[i, t], tile.shape)
                np.testing.assert_array_equal(tile, expected)


def test_text_stands_around_a_grid_whose_pixels_stay():
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    grid = image_grids.tile_images(images, 2)
    picture = image_grids.add_text(grid, "step 8", ["above", "below"], ["0", "1"])
    rows, columns = grid.shape[:2]
    np.testing.assert_array_equal(picture[-rows:, -columns:], grid)
    plain = image_grids.add_text(grid, "step 8")
    assert picture.shape[0] > plain.shape[0] > rows
    left = picture[-rows:, : picture.shape[1] - columns]
    upper, lower = np.split(left[: rows // 2 * 2], 2)
    assert upper.min() < 100 and lower.min() < 100 and np.any(upper != lower)
    gray = image_grids.add_text(grid[..., :1], "a title that is wider than the grid")
    assert gray.shape[1] > columns and gray.shape[2] == 1


def test_a_line_follows_the_frames_that_were_given():
    clips = np.zeros((2, 4, 5, 6, 3), np.uint8)
    strip = image_grids.draw_grid(clips, 1, 2, context_frames=2)
    bright = np.flatnonzero((strip == image_grids.CONTEXT_BRIGHTNESS).all(axis=(0, 2)))
    # Two frames of six pixels with a border before each, all twice as large.
    assert bright.tolist() == [2 * 14, 2 * 14 + 1]
    assert image_grids.draw_grid(clips, 1, 2).max() < image_grids.CONTEXT_BRIGHTNESS
