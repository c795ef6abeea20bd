"""Original archives as importers are given them, and what importers leave."""

import io
import tarfile

import pytest

from tests.lib.commands import wait_for
from ul.core.errors import DataError


def tar(contents):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def as_folder(where, contents):
    for name, content in contents.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    return str(where)


def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name != ".lock"}


def killed_and_run_again(command, where, shards, *arguments):
    """Two stores of the same arguments: one was killed after three of `shards` train shards."""
    whole, killed = where / "whole", where / "killed"
    assert "rejected: 0" in command(*arguments, f"--out={whole}")
    process = command.start(*arguments, f"--out={killed}")
    wait_for(killed / f"train-00002-of-{shards:05d}.json", "sha256", process)
    process.kill()
    process.communicate()
    assert not (killed / "manifest.json").exists()
    again = command(*arguments, f"--out={killed}")
    assert f" 0 of {shards + 1} shards are there" not in again
    return whole, killed


def interrupted_and_run_again(monkeypatch, module, run, read, where, after, tool):
    """Two stores: `run(out)` was broken off in one, after so many records, and run again."""
    whole, out = where / "whole", where / "out"
    run(whole)
    pack, calls = module.pack, []

    def cut_off(*args):
        calls.append(args)
        if len(calls) > after:
            raise RuntimeError("killed")
        return pack(*args)

    monkeypatch.setattr(module, "pack", cut_off)
    with pytest.raises(RuntimeError, match="killed"):
        run(out, jobs=1)
    with pytest.raises(DataError, match=f"half written.*run the same launch.{tool}"):
        read(out)
    monkeypatch.setattr(module, "pack", pack)
    run(out)
    return whole, out
