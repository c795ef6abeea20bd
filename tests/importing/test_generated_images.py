"""Thousands of generated files: each is read exactly, or rejected by its name."""

import json
import os
import resource

import numpy as np
import pytest

from tests.lib.generated_images import SIDE, generate
from tests.lib.originals import write_folder
from ul.core.files import display_name
from ul.data.sources import folder, imported_images
from ul.importing import images as importing

COUNT = 2000


def check(file, pixels):
    """Compare what a reader made of a file, pixels or None, with what it must be."""
    if pixels is None:
        assert file.pixels is None or file.may_be_rejected, f"{file.name!r} rejected"
        return
    assert file.pixels is not None, f"{file.name!r} must be rejected"
    if file.tolerance is not None:
        error = np.abs(pixels.astype(float) - file.pixels).max()
        assert error <= file.tolerance, f"{file.name!r} differs by {error} levels"


def add_what_is_no_file(path):
    """Add a pipe, a folder and a link to nothing, all with the names of images."""
    os.mkfifo(path / "a" / "pipe.png")
    (path / "a" / "folder.png").mkdir()
    (path / "b" / "link.png").symlink_to("nowhere.png")
    (path / "b" / ".hidden.png").write_bytes(b"\0")


@pytest.fixture
def peak():
    """Measure by how many bytes a test raised the memory that this process needed at most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield lambda: 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_a_folder_reads_each_file_or_rejects_it(tmp_path, caplog, peak):
    files = generate(COUNT, seed=0)
    path = tmp_path / "files"
    write_folder(path, {file.name: file.content for file in files})
    add_what_is_no_file(path)
    source = folder.make_source(
        "train", (SIDE, SIDE, 3), path=str(path), holdout=0.0, max_bad_fraction=1.0
    )
    by_name = {str(path / file.name): file for file in files}
    assert len(source) == COUNT
    pixels = [source[i]["image"] for i in range(COUNT)]
    for i, name in enumerate(source._names):
        rejected = f": {display_name(name)} (" in caplog.text
        check(by_name[name], None if rejected else pixels[i])
    assert peak() < 2**30


def test_an_import_keeps_each_file_or_rejects_it(tmp_path, peak):
    files = generate(COUNT, seed=1)
    by_name = {file.name: file for file in files}
    train = tmp_path / "train"
    write_folder(train, {file.name: file.content for file in files})
    add_what_is_no_file(train)
    held_out = [f for f in generate(28, seed=2) if f.pixels is not None]
    paths = {
        "train": str(train),
        "eval": write_folder(tmp_path / "eval", {f.name: f.content for f in held_out}),
    }
    manifest = importing.import_images(
        paths,
        str(tmp_path / "out"),
        size=SIDE,
        shard_examples=50,
        jobs=2,
        max_bad_fraction=1.0,
    )
    rejected = {f["file"] for f in manifest["rejected"] if f["split"] == "train"}
    summaries = sorted((tmp_path / "out").glob("train-*.json"))
    kept = [n for s in summaries for n in json.loads(s.read_text())["names"]]
    source = imported_images.make_source(
        "train", (SIDE, SIDE, 3), path=str(tmp_path / "out")
    )
    assert len(kept) + len(rejected) == COUNT and len(source) == len(kept)
    by_name = {display_name(name): file for name, file in by_name.items()}
    for i, name in enumerate(kept):
        check(by_name[name], source[i]["image"])
    for name in rejected:
        check(by_name[name], None)
    assert peak() < 2**30
