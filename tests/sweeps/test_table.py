"""The table says what the runs have written, however far they are."""

import io
import json

from etils import epath

from ul.sweeps import table
from ul.sweeps.runner import Work


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_line_has_what_is_known(expand, tmp_path):
    (trial,) = expand({"loss.factor": 1.5})
    out, work = epath.Path(tmp_path), Work(trial, 0)
    assert table.row(out, work) == table.Row("factor1.5", "waiting", "0/8")
    first = tmp_path / "factor1.5/stage1"
    (first / "evals").mkdir(parents=True)
    lines = [dict(step=2, rate_bpp=0.75, steps_per_s=2.0), dict(step=4, rate_bpp=0.5)]
    lines = [json.dumps(line) for line in lines] + ['{"step": 6, "ra']
    (first / "metrics.jsonl").write_text("\n".join(lines))
    work.state = "training"
    found = table.row(out, work)
    assert found == table.Row("factor1.5", "training s1", "4/8", "0.500", "", "0:02")
    record = dict(rate_bpp=0.625, psnr_db=21.5)
    (first / "evals" / "a.json").write_text(json.dumps(record))
    work.stage = 1
    found = table.row(out, work)
    assert found == table.Row("factor1.5", "training s2", "0/8", "0.625", "21.50")


def test_a_long_log_is_read_from_its_end(expand, tmp_path):
    (trial,) = expand({"loss.factor": 1.5})
    path = tmp_path / "factor1.5/stage1/metrics.jsonl"
    path.parent.mkdir(parents=True)
    text = "".join(json.dumps(dict(step=i, rate_bpp=i)) + "\n" for i in range(9999))
    path.write_text(text)
    assert table.row(epath.Path(tmp_path), Work(trial, 0)).step == "9998/8"


def test_clocks():
    assert [table.clock(s) for s in (9.4, 61, 3723)] == ["0:09", "1:01", "1:02:03"]


def shown(monkeypatch, file, trials, tmp_path, *states):
    monkeypatch.setattr(table, "REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(table.sys, "stderr", file)
    made = table.Table(epath.Path(tmp_path), 1, enabled=True)
    works = [Work(trial, 0) for trial in trials]
    for state in states:
        works[0].state = state
        made.show(works)
    works[0].code = 0
    made.show(works, last=True)
    return file.getvalue()


def test_a_terminal_is_rewritten_in_place(monkeypatch, expand, tmp_path):
    trials = expand({"loss.factor": 1.5}, {"loss.factor": 2.0})
    text = shown(monkeypatch, Screen(), trials, tmp_path, "training", "done")
    first, *later = text.split("\x1b[4A")  # two trials, a head and the total
    assert len(later) == 2 and "training s1" in first
    assert "1 of 2 done, 0 failed" in later[-1]


def test_elsewhere_a_line_for_every_change(monkeypatch, expand, tmp_path):
    trials = expand({"loss.factor": 1.5}, {"loss.factor": 2.0})
    states = ("training", "training", "failed 65")
    text = shown(monkeypatch, io.StringIO(), trials, tmp_path, *states)
    assert "\x1b" not in text
    lines = [line.split()[:2] for line in text.splitlines()]
    assert lines[:2] == [["factor1.5", "training"], ["factor1.5", "failed"]]
    assert len(lines) == 3
