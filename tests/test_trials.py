"""Trials: what is refused before any begins, and what is passed over when run again."""

import importlib
import json
import subprocess

import pytest

from ul import trials
from ul.core.errors import ConfigError, StorageError
from ul.evals import report

ablations = importlib.import_module("experiments.ablations")


def stages(tmp_path, name="ul"):
    variant = f"experiments/ablations.py:{name}"
    return [
        trials.Stage(variant, ablations.get_config(name), tmp_path / name),
        trials.Stage(
            f"{variant}_base",
            ablations.get_config(f"{name}_base"),
            tmp_path / f"{name}_base",
            below=tmp_path / name,
        ),
    ]


@pytest.fixture
def commands(monkeypatch):
    """Every command that would run; `codes` says how the next ones end."""
    seen, codes = [], []

    def run(line, **how):
        seen.append(line[2:])
        workdir = line[line.index("--workdir") + 1]
        trials.epath.Path(workdir, "evals").mkdir(parents=True, exist_ok=True)
        return subprocess.CompletedProcess(line, codes.pop(0) if codes else 0)

    monkeypatch.setattr(trials.subprocess, "run", run)
    return seen, codes


def test_both_stages_train_and_are_evaluated_once(tmp_path, commands):
    seen, _ = commands
    how = dict(sets=["seed=3"], jobs=1)
    path = trials.epath.Path(tmp_path)
    assert trials.run(path, {"ul": stages(path)}, **how) == {}
    assert [line[0] for line in seen] == ["launch.train", "launch.evaluate"] * 2
    assert all("--config.seed=3" in line for line in seen[::2])
    assert f"--config.stage1.workdir={path / 'ul'}" in seen[2]
    assert trials.run(path, {"ul": stages(path)}, **how) == {}
    assert len(seen) == 4


def test_a_failure_ends_its_trial_alone_and_is_taken_up_again(tmp_path, commands):
    seen, codes = commands
    path = trials.epath.Path(tmp_path)
    both = {name: stages(path, name) for name in ("ul", "normal_prior")}
    codes += [0, 65]
    assert trials.run(path, both, [], 1) == {"ul": 65}
    assert len(seen) == 2 + 4
    assert trials.run(path, both, [], 1) == {}
    assert len(seen) == 6 + 4  # the failed evaluation, and the stage after it


def test_a_preempted_trial_stops_those_that_have_not_begun(tmp_path, commands):
    seen, codes = commands
    path = trials.epath.Path(tmp_path)
    names = ablations.KINDS
    codes += [trials.PREEMPTED]
    failed = trials.run(path, {n: stages(path, n) for n in names}, [], 1)
    assert failed["ul"] == trials.PREEMPTED
    assert len(seen) < 4 * len(names)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("stpes=20", "has no key stpes"),
        ("loss.factr=2", "has no key loss.factr"),
        ("steps=-1", "steps is -1"),
        ("steps=many", "must be of type int"),
    ],
)
def test_settings_are_checked_before_anything_begins(tmp_path, commands, pair, message):
    path = trials.epath.Path(tmp_path) / "out"
    with pytest.raises(ConfigError, match=message):
        trials.run(path, {"ul": stages(path)}, [pair], 1)
    assert not commands[0] and not path.exists()


def test_other_settings_want_another_directory(tmp_path, commands):
    path = trials.epath.Path(tmp_path)
    trials.run(path, {"ul": stages(path)}, ["steps=2"], 1)
    with pytest.raises(ConfigError, match="begun with --set"):
        trials.run(path, {"ul": stages(path)}, ["steps=4"], 1)


def test_a_directory_that_cannot_be_is_said(tmp_path, commands):
    (tmp_path / "file").touch()
    path = trials.epath.Path(tmp_path) / "file"
    with pytest.raises(StorageError, match="cannot be written"):
        trials.run(path, {"ul": stages(path)}, [], 1)


def test_a_trials_numbers_are_those_of_the_usual_evaluation(tmp_path):
    usual = dict(weights="ema", seed=0, written="2026-01-01")
    written = [
        usual | dict(rate_bpp=0.5, written="2026-01-02"),
        usual | dict(rate_bpp=0.9, weights="raw", written="2026-01-03"),
        usual | dict(guidance=1.0, frechet=1.0),
        usual | dict(guidance=1.5, frechet=2.0, written="2026-01-04"),
    ]
    folder = tmp_path / "ul" / "evals"
    folder.mkdir(parents=True)
    for i, record in enumerate(written):
        (folder / f"{i}.json").write_text(json.dumps(record))
    found = report.merged(tmp_path, "ul")
    assert (found["rate_bpp"], found["frechet"]) == (0.5, 1.0)
