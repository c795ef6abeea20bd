"""Archives and folders for tests of the importers, and reruns after an interruption."""

import io
import tarfile

import pytest

from tests.lib.commands import wait_for
from ul.core.errors import DataError


def tar_bytes(files):
    """Return a tar archive of `files`, a dict from name to content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_folder(directory, files):
    """Write `files`, a dict from name to content, and return the directory as a string."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return str(directory)


def read_folder(directory):
    """Return the content of every file in a directory by name, without the lock file."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != ".lock"}


def kill_and_rerun(command, directory, num_shards, *arguments):
    """Run an import once without interruption and once with a kill and a second run.

    The kill comes after three of `num_shards` train shards. Returns both output
    directories.
    """
    uninterrupted, killed = directory / "whole", directory / "killed"
    assert "rejected: 0" in command(*arguments, f"--out={uninterrupted}")
    process = command.start(*arguments, f"--out={killed}")
    wait_for(killed / f"train-00002-of-{num_shards:05d}.json", "sha256", process)
    process.kill()
    process.communicate()
    assert not (killed / "manifest.json").exists()
    log = command(*arguments, f"--out={killed}")
    assert f" 0 of {num_shards + 1} shards are there" not in log
    return uninterrupted, killed


def interrupt_and_rerun(monkeypatch, module, run, read, directory, num_records, tool):
    """Call `run(out)` once without interruption and once with an error and a second run.

    The error comes after `num_records` records; `read(out)` must then reject the output.
    Returns both output directories.
    """
    uninterrupted, out = directory / "whole", directory / "out"
    run(uninterrupted)
    pack, calls = module.pack, []

    def failing_pack(*args, **settings):
        calls.append(args)
        if len(calls) > num_records:
            raise RuntimeError("killed")
        return pack(*args, **settings)

    monkeypatch.setattr(module, "pack", failing_pack)
    with pytest.raises(RuntimeError, match="killed"):
        run(out, jobs=1)
    with pytest.raises(
        DataError, match=f"is incomplete: .*Run the same python -m ul {tool}"
    ):
        read(out)
    monkeypatch.setattr(module, "pack", pack)
    run(out)
    return uninterrupted, out
