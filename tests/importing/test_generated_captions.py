"""Generated caption files: each is read exactly; a damaged one is read or named."""

import errno
import tarfile

import numpy as np
import pytest

from tests.lib.generated_captions import FORMATS, archive, generate
from ul.core.errors import DataError, StorageError
from ul.importing import caption_files

COUNT = 500


def known(captions):
    """Return the captions without those of images that have none."""
    return {name: text for name, text in captions.items() if text}


@pytest.mark.parametrize("format", FORMATS)
def test_each_file_is_read_exactly(format, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        suffix, content, captions = generate(rng, format)
        file = tmp_path / f"captions{i}{suffix}"
        file.write_bytes(content)
        assert known(caption_files.read_captions(str(file))) == captions, content


def test_failing_storage_is_not_a_broken_archive(tmp_path, monkeypatch):
    suffix, content, _ = generate(np.random.default_rng(2), archive)
    file = tmp_path / f"captions{suffix}"
    file.write_bytes(content)

    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tarfile, "open", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        caption_files.read_captions(str(file))


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_is_read_or_named(format, tmp_path):
    rng = np.random.default_rng(1)
    rejected = 0
    for i in range(COUNT):
        suffix, content, _ = generate(rng, format)
        content = bytearray(content)
        if rng.random() < 0.5:
            content = content[: rng.integers(len(content))]
        else:
            for position in rng.integers(len(content), size=rng.integers(1, 9)):
                content[position] = rng.integers(256)
        file = tmp_path / f"captions{i}{suffix}"
        file.write_bytes(bytes(content))
        try:
            captions = caption_files.read_captions(str(file))
        except DataError as e:
            assert file.name in str(e) and "\n" not in str(e)
            rejected += 1
        else:
            assert all(isinstance(text, str) for text in captions.values())
    assert rejected > COUNT / 20
