"""Goodput: every second of a run belongs to one category, also after kills."""

import json
import logging
import subprocess
import sys
import time

import pytest

from tests.lib.breaks import Break
from tests.lib.commands import DIGITS, ROOT
from ul.train import goodput


def seconds(*records):
    fields = ("time", "phase", "step")
    totals = goodput.seconds_by_category(
        dict(zip(fields, record, strict=True)) for record in records
    )
    assert sum(totals.values()) == pytest.approx(records[-1][0] - records[0][0])
    return {name: value for name, value in totals.items() if value}


def test_a_run_without_interruption():
    assert seconds(
        (0.0, "start", 0),
        (3.0, "restore", 0),
        (3.5, "restore", 0),
        (4.0, "compile", 0),
        (10.0, "step", 0),
        (15.0, "step", 50),
        (15.5, "evaluation", 50),
        (18.0, "step", 50),
        (20.0, "save", 50),
        (21.0, "step", 50),
        (25.0, "step", 100),
        (26.0, "stopped", 100),
    ) == pytest.approx(
        {
            "starting": 3.0,
            "restoring": 1.0,
            "compilation": 6.0,
            "training": 5.0 + 0.5 + 2.0 + 4.0 + 1.0,
            "validation": 2.5,
            "saving": 1.0,
        }
    )


def test_what_a_kill_destroys_counts_as_repeated():
    """The checkpoint of step 60 was saved; the process was killed after step 100."""
    assert seconds(
        (0.0, "start", 0),
        (1.0, "step", 0),
        (11.0, "step", 50),  # kept
        (21.0, "step", 100),  # 10 of these 50 steps are kept
        (22.0, "step", 100),
        (30.0, "start", 0),
        (31.0, "restore", 0),
        (32.0, "restore", 60),
        (33.0, "step", 60),
        (43.0, "step", 110),
        (44.0, "stopped", 110),
    ) == pytest.approx(
        {
            "starting": 2.0,
            "training": 10.0 + 2.0 + 10.0 + 1.0,
            "repeated training": 8.0 + 1.0,
            "stopped": 8.0,
            "restoring": 2.0,
        }
    )


def test_a_process_that_dies_before_it_trains_loses_nothing_else():
    assert seconds(
        (0.0, "start", 0),
        (1.0, "restore", 0),
        (5.0, "start", 0),
        (6.0, "restore", 0),
        (7.0, "restore", 0),
        (8.0, "stopped", 0),
    ) == {"starting": 2.0, "stopped": 4.0, "restoring": 2.0}


def test_a_restore_that_fails_destroys_no_training():
    totals = seconds(
        (0.0, "start", 0),
        (1.0, "restore", 0),
        (2.0, "restore", 0),
        (3.0, "step", 0),
        (103.0, "step", 500),
        (104.0, "stopped", 500),
        (110.0, "start", 0),
        (111.0, "restore", 0),
        (112.0, "stopped", 0),
        (120.0, "start", 0),
        (121.0, "restore", 0),
        (122.0, "restore", 500),
        (123.0, "step", 500),
        (124.0, "stopped", 500),
    )
    assert totals["training"] == 102.0 and "repeated training" not in totals


def test_records_are_kept_until_the_workdir_is_known(tmp_path):
    log = goodput.GoodputLog()
    log.enter_phase("restore")
    assert not list(tmp_path.iterdir())
    log.open(tmp_path)
    log.add_step(7)
    records = goodput.read(tmp_path)
    assert [(r["phase"], r["step"]) for r in records] == [
        ("start", 0),
        ("restore", 0),
        ("restore", 7),
    ]
    with (tmp_path / goodput.FILE).open("ab") as file:
        file.write(b'[1, 2]\n{"time": 1}\n\xff\xfe\n{"time": 5, "pha')
    assert goodput.read(tmp_path) == records
    again = goodput.GoodputLog()
    again.open(tmp_path)
    again.add_step(9)  # its first record is not joined to the half line
    assert [r["phase"] for r in goodput.read(tmp_path)[3:]] == ["start", "start"]
    other = goodput.GoodputLog()
    other.open(None)
    other.add_step(8)
    assert len(goodput.read(tmp_path)) == 5


def test_a_full_disk_is_reported_once_and_stops_nothing(tmp_path, caplog):
    log = goodput.GoodputLog()
    (tmp_path / goodput.FILE).mkdir()
    log.open(tmp_path)
    with caplog.at_level(logging.WARNING, "ul"):
        for step in range(3):
            log.add_step(step)
    assert len(caplog.messages) == 1 and "training continues" in caplog.messages[0]
    (tmp_path / goodput.FILE).rmdir()
    log.add_step(3)  # what could not be written is not lost
    assert [r["step"] for r in goodput.read(tmp_path)] == [0, 0, 1, 2, 3]


def test_the_start_is_that_of_the_process_and_not_of_the_import():
    program = (
        "import time; time.sleep(0.5); from ul.train import goodput; import json; "
        "print(json.dumps(goodput.process_start_time()))"
    )
    before = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert abs(json.loads(done.stdout) - before) < 0.4


@pytest.mark.slow
def test_the_categories_of_a_run_that_was_killed_add_up_to_its_wall_time(tmp_path):
    """Two kills and one SIGTERM, with pauses between the starts."""
    command = [
        *(sys.executable, "-m", "ul", "train", f"--config={DIGITS}:stage1"),
        *("--config.steps=400", "--config.loss.rate_floor_bpp=0.0"),
        *("--config.checkpoint.every=40", "--config.log.every=20"),
        *("--config.validation.every=400", f"--workdir={tmp_path}"),
    ]
    begun = time.time()
    for number, code in ((9, -9), (15, 75), (9, -9), (None, 0)):
        now = time.time()
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while number and process.poll() is None and steps_since(tmp_path, now) < 60:
            time.sleep(0.1)
        if number:
            process.send_signal(number)
        assert process.wait() == code
        ended = time.time()
        time.sleep(1.0 if number else 0.0)
    totals = goodput.seconds_by_category(goodput.read(tmp_path))
    assert sum(totals.values()) == pytest.approx(ended - begun, rel=0.01)
    assert totals["repeated training"] > 0.0 and totals["stopped"] > 2.0
    assert totals["training"] > totals["validation"] > 0.0


def steps_since(workdir, then):
    """Return the steps that a process has logged which was started after this time."""
    steps = [
        r["step"]
        for r in goodput.read(workdir)
        if r["phase"] == "step" and r["time"] > then
    ]
    return steps[-1] - steps[0] if steps else 0


BREAKS = (
    Break(
        "training that a kill destroyed counted as training",
        "ul/train/goodput.py",
        'totals["repeated"] += _cut(interval, following["step"])',
        "pass",
        "test_what_a_kill_destroys_counts_as_repeated",
    ),
)
