"""Images as differences of rows: exact, and faster to read than PNG files."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from tests.lib.breaks import Break
from ul.data import record_shards, row_differences
from ul.data.record_shards import Shard
from ul.data.sources import imported_images


def photograph(size):
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:size, :size])


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (4, 9, 1), (256, 256, 3)])
def test_an_image_comes_back_exactly(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = row_differences.encode(image)
    assert row_differences.is_encoded(content)
    assert np.array_equal(row_differences.decode(content), image)
    assert not row_differences.is_encoded(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    "damage", [lambda c: c[:5], lambda c: c[:-1], lambda c: c + b"x"]
)
def test_damage_is_an_error_that_readers_know(damage):
    content = row_differences.encode(photograph(8))
    with pytest.raises((struct.error, ValueError)):
        row_differences.decode(damage(content))


def write_shard(folder, records, compression):
    store = record_shards.ShardStore(folder, "test", "command")
    shard = Shard("train", 0, 1, 0, len(records))
    return store.write_shard(shard, records, dict, compression)


def old_record(label, image):
    """Return a record as older versions wrote it."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=1)
    return imported_images.HEADER.pack(label) + content.getvalue()


def test_records_of_older_versions_are_read():
    image = photograph(32)
    label, pixels = imported_images.unpack(old_record(7, image))
    assert label == 7 and np.array_equal(pixels, image)


@pytest.mark.slow
def test_new_records_are_read_more_than_twice_as_fast_as_old_ones(tmp_path):
    """CPU time, from the shard on the disk to the pixels, in one run."""
    from array_record.python import array_record_data_source

    image = photograph(512)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    new = imported_images.pack(7, file.getvalue(), 512)
    seconds, sizes = {}, {}
    for name, record, compression in (
        ("old", old_record(7, image), record_shards.UNCOMPRESSED),
        ("new", new, record_shards.ZSTD_1),
    ):
        (tmp_path / name).mkdir()
        summary = write_shard(tmp_path / name, [record] * 64, compression)
        sizes[name] = summary["bytes"]
        source = array_record_data_source.ArrayRecordDataSource(
            str(tmp_path / name / summary["file"])
        )
        times = []
        for _ in range(3):
            begun = time.process_time()
            for i in range(64):
                label, pixels = imported_images.unpack(source[i])
            times.append(time.process_time() - begun)
            assert label == 7 and np.array_equal(pixels, image)
        seconds[name] = min(times)
    assert seconds["new"] < seconds["old"] / 2
    assert sizes["new"] < 1.05 * sizes["old"]


BREAKS = (
    Break(
        "differences to the original row instead of the restored one",
        "ul/data/row_differences.py",
        "rows[row] += rows[row - 1]",
        "rows[row] += differences.reshape(rows.shape)[row - 1]",
        "test_an_image_comes_back_exactly",
    ),
)
