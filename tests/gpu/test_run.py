"""The script for one accelerator: what it skips, reports and writes."""

import json
import time

import pytest

from tests.gpu import measure, run
from tests.lib.breaks import Break
from ul.models import dropout


def fails(reduced):
    raise measure.Failed("wrong")


def test_rows_fail_and_are_skipped_one_by_one(tmp_path):
    path = tmp_path / "gpu.json"
    table = [
        ("good", lambda reduced: {"ms": 1.0}, 0),
        ("wrong", fails, 0),
        ("long", fails, 1e6),
        ("last", lambda reduced: {"ms": 2.0}, 0),
    ]
    results = run.run(table, False, time.monotonic() + 60, path)
    assert results == json.loads(path.read_text())["rows"]
    assert results[0] == {"name": "good", "ms": 1.0} and results[3]["ms"] == 2.0
    assert results[1]["failed"] == "Failed: wrong"
    assert results[2]["skipped"] == "too little time is left"
    assert "| wrong | failed Failed: wrong" in " ".join(
        run.to_markdown(results).split()
    )


def test_a_wrong_mask_and_wrong_gradients_are_found(monkeypatch):
    measure.check_dropout(True)
    settings = dict(attention="xla", dtype="float32")
    measure.check_gradients(True, **settings, limit=1e-6)
    with pytest.raises(measure.Failed, match="gradients differ by"):
        measure.check_gradients(True, attention="xla", dtype="bfloat16", limit=1e-4)
    masks = iter([True, False])
    mask = dropout.keep_mask

    def other(key, shape, rate):
        return mask(key, shape, rate) if next(masks) else ~mask(key, shape, rate)

    monkeypatch.setattr(dropout, "keep_mask", other)
    with pytest.raises(measure.Failed, match="differs from that of the CPU"):
        measure.check_dropout(True)


BREAKS = (
    Break(
        "an error that ends the script",
        "tests/gpu/run.py",
        "except Exception as e:",
        "except KeyError as e:",
        "test_rows_fail_and_are_skipped_one_by_one",
    ),
)
