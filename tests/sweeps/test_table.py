"""The table shows what the runs have written, at any point of their progress."""

import io
import json

from etils import epath

from ul.sweeps import table
from ul.sweeps.execution import TrialExecution


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_shows_what_is_known(expand, tmp_path):
    (trial,) = expand({"loss.weighting.factor": 1.5})
    out, execution = epath.Path(tmp_path), TrialExecution(trial, 0)
    assert table.trial_status(out, execution) == table.TrialStatus(
        "factor1.5", "waiting", "0/8"
    )
    first = tmp_path / "factor1.5/stage1"
    (first / "evals").mkdir(parents=True)
    lines = [dict(step=2, rate_bpp=0.75, steps_per_s=2.0), dict(step=4, rate_bpp=0.5)]
    lines = [json.dumps(line) for line in lines] + ['{"step": 6, "ra']
    (first / "metrics.jsonl").write_text("\n".join(lines))
    execution.status = "training"
    status = table.trial_status(out, execution)
    assert status == table.TrialStatus(
        "factor1.5", "training s1", "4/8", "0.500", "", "0:02"
    )
    record = dict(rate_bpp=0.625, psnr_db=21.5)
    (first / "evals" / "a.json").write_text(json.dumps(record))
    execution.stage_index = 1
    status = table.trial_status(out, execution)
    assert status == table.TrialStatus(
        "factor1.5", "training s2", "0/8", "0.625", "21.50"
    )


def test_a_long_log_is_read_from_its_end(expand, tmp_path):
    (trial,) = expand({"loss.weighting.factor": 1.5})
    path = tmp_path / "factor1.5/stage1/metrics.jsonl"
    path.parent.mkdir(parents=True)
    text = "".join(json.dumps(dict(step=i, rate_bpp=i)) + "\n" for i in range(9999))
    path.write_text(text)
    assert (
        table.trial_status(epath.Path(tmp_path), TrialExecution(trial, 0)).step
        == "9998/8"
    )


def test_durations():
    assert [table.format_duration(s) for s in (9.4, 61, 3723)] == [
        "0:09",
        "1:01",
        "1:02:03",
    ]


def show_all(monkeypatch, file, trials, tmp_path, *statuses):
    monkeypatch.setattr(table, "REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(table.sys, "stderr", file)
    status_table = table.StatusTable(epath.Path(tmp_path), enabled=True)
    executions = [TrialExecution(trial, 0) for trial in trials]
    for status in statuses:
        executions[0].status = status
        status_table.show(executions)
    executions[0].exit_code = 0
    status_table.show(executions, last=True)
    return file.getvalue()


def test_a_terminal_is_rewritten_in_place(monkeypatch, expand, tmp_path):
    trials = expand({"loss.weighting.factor": 1.5}, {"loss.weighting.factor": 2.0})
    text = show_all(monkeypatch, Terminal(), trials, tmp_path, "training", "done")
    first, *later = text.split("\x1b[4A")  # Two trials, the header and the total.
    assert len(later) == 2 and "training s1" in first
    assert "1 of 2 done, 0 failed" in later[-1]


def test_a_file_gets_a_line_for_every_change(monkeypatch, expand, tmp_path):
    trials = expand({"loss.weighting.factor": 1.5}, {"loss.weighting.factor": 2.0})
    statuses = ("training", "training", "failed with exit code 65")
    text = show_all(monkeypatch, io.StringIO(), trials, tmp_path, *statuses)
    assert "\x1b" not in text
    lines = [line.split()[:2] for line in text.splitlines()]
    assert lines[:2] == [["factor1.5", "training"], ["factor1.5", "failed"]]
    assert len(lines) == 3
