"""A job, and scripts that stand in for the programs of a cluster."""

import os

import pytest

from launch.lib.jobs import Job


@pytest.fixture
def job():
    """Make a job for a workdir."""

    def make(workdir, **changes):
        fields = dict(
            name="job",
            config="c",
            workdir=str(workdir),
            overrides=("--config.x=a 'b'",),
            options=(),
            max_attempts=3,
            python="train",
        )
        return Job(**fields | changes)

    return make


@pytest.fixture
def stand_in(tmp_path):
    """Put a script first on the PATH; returns a function that reads the calls it got."""
    (tmp_path / "bin").mkdir()

    def put(name, body):
        file = tmp_path / "bin" / name
        log = tmp_path / f"{name}.calls"
        file.write_text(f'#!/usr/bin/env bash\necho "$@" >>{log}\n{body}\n')
        file.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    put.env = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return put


@pytest.fixture
def ends_with(stand_in, tmp_path):
    """Put a train command on the PATH whose runs end with these exit codes, in order."""

    def put(*codes):
        left = tmp_path / "codes"
        left.write_text("".join(f"{c}\n" for c in codes))
        take = f"code=$(head -n 1 {left}); sed -i 1d {left}"
        return stand_in("train", f"{take}\nexit $code")

    return put
