"""Listing folders as people keep them: links, loops, pipes and folders of devices."""

import os
import time

import pytest

from tests.lib.breaks import Break
from ul.core.errors import DataError
from ul.data import file_listing

BREAKS = (
    Break(
        "a link to a parent is followed for ever",
        "ul/data/file_listing.py",
        "            if identity in visited:",
        "            if identity in visited and False:",
        "test_a_link_to_a_parent_is_not_followed_again",
    ),
    Break(
        "links are followed before real folders",
        "ul/data/file_listing.py",
        "folder = folders.pop() if folders else links.popleft()",
        "folder = links.popleft() if links else folders.pop()",
        "test_a_link_never_takes_the_place_of_its_target",
    ),
)


def write(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def names(root) -> list[str]:
    return [file.name for file in file_listing.list_files(str(root)).files]


def test_files_are_sorted_and_have_their_sizes(tmp_path):
    write(tmp_path / "b" / "2.png", "abc")
    write(tmp_path / "a.png")
    listing = file_listing.list_files(str(tmp_path))
    assert [(f.name, f.size) for f in listing.files] == [("a.png", 1), ("b/2.png", 3)]
    assert listing.files[1].path == str(tmp_path / "b" / "2.png")
    assert not listing.skipped


def test_linked_files_and_folders_are_listed(tmp_path):
    write(tmp_path / "elsewhere" / "dog" / "1.png")
    write(tmp_path / "data" / "cat" / "1.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "data" / "cat" / "2.png").symlink_to("1.png")
    assert names(tmp_path / "data") == ["cat/1.png", "cat/2.png", "dog/1.png"]


def test_a_link_to_a_parent_is_not_followed_again(tmp_path):
    write(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "loop").symlink_to("..")
    listing = file_listing.list_files(str(tmp_path))
    assert [file.name for file in listing.files] == ["cat/1.png"]
    assert listing.skipped == {"links to folders that are listed already": 1}


def test_several_loops_are_left_too(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / name / "1.png")
        (tmp_path / name / "loop").symlink_to("..")
    assert names(tmp_path) == ["cat/1.png", "dog/1.png"]


def test_a_link_never_takes_the_place_of_its_target(tmp_path):
    write(tmp_path / "z" / "deep" / "1.png")
    (tmp_path / "a").symlink_to("z")
    write(tmp_path / "m" / "1.png")
    (tmp_path / "m" / "n").symlink_to("../z/deep")
    assert names(tmp_path) == ["m/1.png", "z/deep/1.png"]


def test_what_is_no_file_of_the_user_is_counted(tmp_path):
    write(tmp_path / "1.png")
    write(tmp_path / ".hidden.png")
    write(tmp_path / ".cache" / "2.png")
    write(tmp_path / "@eaDir" / "1.png")
    write(tmp_path / "__MACOSX" / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    listing = file_listing.list_files(str(tmp_path))
    assert [file.name for file in listing.files] == ["1.png"]
    assert listing.skipped == {
        "hidden": 2,
        "system folders": 2,
        "pipes, sockets and devices": 1,
        "links to nothing": 2,
    }


def test_names_that_are_not_utf8_are_listed(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write(b"x")
    (listed,) = file_listing.list_files(str(tmp_path)).files
    assert os.fsencode(listed.name) == b"caf\xe9.png" and os.path.isfile(listed.path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="must be an existing directory"):
        file_listing.list_files(str(tmp_path / "none"))


def age(folder, seconds):
    """Let a folder look as if it had been changed some time ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


def test_a_folder_is_read_again_only_if_something_in_it_changed(tmp_path, monkeypatch):
    inner = tmp_path / "class"
    inner.mkdir()
    (inner / "a.png").write_text("a")
    (inner / ".hidden").write_text("")
    age(inner, 60)
    age(tmp_path, 60)
    first = file_listing.list_files(str(tmp_path))
    first.skipped["changed by the caller"] += 1
    first.files.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: pytest.fail(f"reads {path}"))
        again = file_listing.list_files(str(tmp_path))
    assert [f.name for f in again.files] == ["class/a.png"]
    assert again.skipped == {"hidden": 1}
    (inner / "b.png").write_text("b")
    assert names(tmp_path) == ["class/a.png", "class/b.png"]
    (inner / "b.png").unlink()  # within the time that a time stamp cannot tell apart
    assert names(tmp_path) == ["class/a.png"]


@pytest.mark.slow
def test_a_listing_costs_little_more_than_the_calls_that_it_needs(tmp_path):
    for folder in map(str, range(20)):
        (tmp_path / folder).mkdir()
        for i in range(1000):
            (tmp_path / folder / f"{i}.png").touch()

    def needed():
        for folder in os.scandir(tmp_path):
            for entry in os.scandir(folder):
                entry.stat()

    def seconds(function):
        times = []
        for _ in range(5):
            begun = time.process_time()
            function()
            times.append(time.process_time() - begun)
        return min(times)

    def listing():
        file_listing._kept.clear()
        assert len(file_listing.list_files(str(tmp_path)).files) == 20_000

    assert seconds(listing) < 3.5 * seconds(needed)
