"""sweep.json: what a directory was begun with; it grows and does not change."""

import json

import pytest
from etils import epath

from ul import sweeps
from ul.core.errors import ConfigError, StorageError
from ul.evaluation import table
from ul.sweeps import records


def begin(out, trials, **how):
    sweeps.begin(epath.Path(out), "file.py", trials, **how)
    return json.loads((out / "sweep.json").read_text())


def points(*factors):
    return [{"loss.factor": factor} for factor in factors]


def test_it_says_trials_stages_and_workdirs(expand, tmp_path):
    said = begin(tmp_path / "out", expand(*points(1.5), fixed={"stage2:steps": 4}))
    assert said["sweep"] == "file.py" and said["code"]
    (trial,) = said["trials"]
    assert (trial["name"], trial["overrides"]) == ("factor1.5", {"loss.factor": 1.5})
    assert trial["stages"] == [
        {
            "config": "experiments/digits.py:smoke",
            "workdir": "factor1.5/stage1",
            "overrides": {"loss.factor": 1.5},
        },
        {
            "config": "experiments/digits.py:smoke2",
            "workdir": "factor1.5/stage2",
            "overrides": {"steps": 4},
        },
    ]
    assert said["configs"].keys() == {s["config"] for s in trial["stages"]}


def test_it_grows_and_keeps_what_was(expand, tmp_path):
    begin(tmp_path, expand(*points(1.5)))
    said = begin(tmp_path, expand(*points(2.0, 1.5, 2.5)))
    assert [t["name"] for t in said["trials"]] == ["factor1.5", "factor2", "factor2.5"]
    assert begin(tmp_path, expand(*points(2.5)), some=True) == said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(sets=["steps=4"]), "trial factor1.5, stage 1: steps: None -> 4"),
        (dict(stage2=None), "2 -> 1 stages"),
        (dict(stage1="experiments/ablations.py:ul"), "config: 'experiments/digits.py"),
        (dict(share_stage1=True), "workdir: 'factor1.5/stage1' -> 'shared"),
    ],
)
def test_another_sweep_is_refused(expand, tmp_path, changes, message):
    before = begin(tmp_path, expand(*points(1.5)))
    with pytest.raises(ConfigError, match=message) as e:
        begin(tmp_path, expand(*points(1.5), **changes))
    assert "give another --out" in str(e.value) and "\n" not in str(e.value)
    assert json.loads((tmp_path / "sweep.json").read_text()) == before


def test_a_trial_less_is_refused(expand, tmp_path):
    begin(tmp_path, expand(*points(1.5, 2.0)))
    with pytest.raises(ConfigError, match="trial factor2 is not in it any more"):
        begin(tmp_path, expand(*points(1.5)))


def test_a_config_file_that_changed_is_refused(expand, tmp_path):
    said = begin(tmp_path, expand(*points(1.5)))
    said["configs"]["experiments/digits.py:smoke"]["prior"]["widths"] = [64]
    (tmp_path / "sweep.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=r"smoke: prior.widths: \[64\] -> \[32\]"):
        begin(tmp_path, expand(*points(1.5)))


def test_what_no_result_depends_on_may_change(expand, tmp_path):
    begin(tmp_path, expand(*points(1.5)))
    free = ["log.every=1", "mesh.fsdp=2", "watchdog.step=5", "data.threads=1"]
    changed = expand(*points(1.5), sets=free)
    begin(tmp_path, changed)
    for a, b in zip(expand(*points(1.5))[0].stages, changed[0].stages, strict=True):
        assert a.digest == b.digest


def test_digests_know_the_config_and_the_stage_below(expand):
    a, b = expand(*points(1.5, 2.0))
    (c,) = expand(*points(1.5), sets=["stage2:steps=4"])
    assert len({s.digest for t in (a, b) for s in t.stages}) == 4
    assert a.stages[0].digest == c.stages[0].digest
    assert a.stages[1].digest != c.stages[1].digest


def test_done_is_done_with_this_config_alone(expand, tmp_path):
    out, (trial,) = epath.Path(tmp_path), expand(*points(1.5))
    for stage in trial.stages:
        (out / stage.workdir).mkdir(parents=True)
        records.close_stage(out, stage, 8)
    assert not sweeps.finished(out, trial)
    records.close_trial(out, trial)
    assert sweeps.finished(out, trial)
    (other,) = expand(*points(1.5), sets=["seed=1"])
    assert not sweeps.finished(out, other)
    assert not records.stage_done(out, other.stages[0])
    (tmp_path / "factor1.5" / "DONE.json").write_text('{"tri')
    assert not sweeps.finished(out, trial)


def test_what_is_left_and_what_a_bucket_cannot_lock(expand, tmp_path):
    out, (done, other) = epath.Path(tmp_path), expand(*points(1.5, 2.0))
    records.close_trial(out, done)
    assert sweeps.left(str(out), [done, other]) == [other]
    assert sweeps.left("gs://b/o", [done, other]) == [done, other]
    shared = expand(*({"stage2:seed": n} for n in (1, 2)), share_stage1=True)
    with pytest.raises(ConfigError, match="seed1 and seed2 share a stage 1"):
        sweeps.left("gs://b/o", shared)


def test_directories_that_cannot_be(expand, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        begin(tmp_path / "file", expand(*points(1.5)))
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match="sweep.json is missing or unreadable"):
        begin(tmp_path, expand(*points(1.5)))


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
    found = table.merged(tmp_path / "ul", tmp_path / "none")
    assert (found["rate_bpp"], found["frechet"]) == (0.5, 1.0)
