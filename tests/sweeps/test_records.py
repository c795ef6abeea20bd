"""sweep.json, which can get further trials but not change; and what counts as done."""

import json

import pytest
from etils import epath

from tests.lib.breaks import Break
from ul import sweeps
from ul.core.errors import ConfigError, StorageError
from ul.evaluation import table
from ul.sweeps import records


def write(out, trials, **options):
    sweeps.write_or_check_sweep(epath.Path(out), "file.py", trials, **options)
    return json.loads((out / "sweep.json").read_text())


def points(*factors):
    return [{"loss.weighting.factor": factor} for factor in factors]


def test_the_record_lists_trials_stages_and_workdirs(expand, tmp_path):
    record = write(tmp_path / "out", expand(*points(1.5), fixed={"stage2:steps": 4}))
    assert record["sweep"] == "file.py" and record["code_version"]
    (trial,) = record["trials"]
    assert (trial["name"], trial["overrides"]) == (
        "factor1.5",
        {"loss.weighting.factor": 1.5},
    )
    assert trial["stages"] == [
        {
            "config": "experiments/digits.py:smoke",
            "workdir": "factor1.5/stage1",
            "overrides": {"loss.weighting.factor": 1.5},
        },
        {
            "config": "experiments/digits.py:smoke2",
            "workdir": "factor1.5/stage2",
            "overrides": {"steps": 4},
        },
    ]
    assert record["configs"].keys() == {s["config"] for s in trial["stages"]}


def test_further_trials_are_added_and_saved_ones_stay(expand, tmp_path):
    write(tmp_path, expand(*points(1.5)))
    record = write(tmp_path, expand(*points(2.0, 1.5, 2.5)))
    assert [t["name"] for t in record["trials"]] == [
        "factor1.5",
        "factor2",
        "factor2.5",
    ]
    assert write(tmp_path, expand(*points(2.5)), is_subset=True) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(assignments=["steps=4"]),
            "trial factor1.5, stage 1: steps: not set -> 4",
        ),
        (dict(stage2=None), "2 -> 1 stages"),
        (dict(stage1="experiments/ablations.py:ul"), "config: 'experiments/digits.py"),
        (dict(share_stage1=True), "workdir: 'factor1.5/stage1' -> 'shared"),
    ],
)
def test_another_sweep_is_refused(expand, tmp_path, changes, message):
    before = write(tmp_path, expand(*points(1.5)))
    with pytest.raises(ConfigError, match=message) as e:
        write(tmp_path, expand(*points(1.5), **changes))
    assert "choose another --out" in str(e.value) and "\n" not in str(e.value)
    assert json.loads((tmp_path / "sweep.json").read_text()) == before


def test_a_missing_trial_is_refused(expand, tmp_path):
    write(tmp_path, expand(*points(1.5, 2.0)))
    with pytest.raises(ConfigError, match="trial factor2 is missing"):
        write(tmp_path, expand(*points(1.5)))


def test_a_config_file_that_changed_is_refused(expand, tmp_path):
    record = write(tmp_path, expand(*points(1.5)))
    record["configs"]["experiments/digits.py:smoke"]["prior"]["widths"] = [64]
    del record["digest"]
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"smoke: prior.widths: \[64\] -> \[32\]"):
        write(tmp_path, expand(*points(1.5)))


def test_settings_on_which_no_result_depends_may_change(expand, tmp_path):
    write(tmp_path, expand(*points(1.5)))
    free = ["log.every=1", "mesh.fsdp=2", "watchdog.step=5", "data.threads=1"]
    changed = expand(*points(1.5), assignments=free)
    write(tmp_path, changed)
    for a, b in zip(expand(*points(1.5))[0].stages, changed[0].stages, strict=True):
        assert a.digest == b.digest


def test_digests_depend_on_the_config_and_on_stage_1(expand):
    a, b = expand(*points(1.5, 2.0))
    (c,) = expand(*points(1.5), assignments=["stage2:steps=4"])
    assert len({s.digest for t in (a, b) for s in t.stages}) == 4
    assert a.stages[0].digest == c.stages[0].digest
    assert a.stages[1].digest != c.stages[1].digest


def test_a_trial_is_finished_with_its_own_config_alone(expand, tmp_path):
    out, (trial,) = epath.Path(tmp_path), expand(*points(1.5))
    for stage in trial.stages:
        (out / stage.workdir).mkdir(parents=True)
        records.mark_stage_finished(out, stage, 8)
    assert not sweeps.is_trial_finished(out, trial)
    records.mark_trial_finished(out, trial)
    assert sweeps.is_trial_finished(out, trial)
    (other,) = expand(*points(1.5), assignments=["seed=1"])
    assert not sweeps.is_trial_finished(out, other)
    assert not records.is_stage_finished(out, other.stages[0])
    (tmp_path / "factor1.5" / "DONE.json").write_text('{"tri')
    assert not sweeps.is_trial_finished(out, trial)


def test_unfinished_trials_and_shared_stages_in_a_bucket(expand, tmp_path):
    out, (done, other) = epath.Path(tmp_path), expand(*points(1.5, 2.0))
    records.mark_trial_finished(out, done)
    assert sweeps.unfinished_trials(str(out), [done, other]) == [other]
    assert sweeps.unfinished_trials("gs://b/o", [done, other]) == [done, other]
    shared = expand(*({"stage2:seed": n} for n in (1, 2)), share_stage1=True)
    with pytest.raises(ConfigError, match="seed1 and seed2 share a stage 1"):
        sweeps.unfinished_trials("gs://b/o", shared)


def test_directories_that_cannot_be_used_are_refused(expand, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file", expand(*points(1.5)))
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(
        ConfigError, match=r"sweep.json is unreadable \(.*\). Pass the directory"
    ):
        write(tmp_path, expand(*points(1.5)))


def test_the_numbers_of_a_trial_are_those_of_the_default_evaluation(tmp_path):
    usual = dict(weights="ema", seed=0, date="2026-01-01")
    written = [
        usual | dict(rate_bpp=0.5, date="2026-01-02"),
        usual | dict(rate_bpp=0.9, weights="raw", date="2026-01-03"),
        usual | dict(guidance=1.0, frechet=1.0),
        usual | dict(guidance=1.5, frechet=2.0, date="2026-01-04"),
    ]
    folder = tmp_path / "ul" / "evals"
    folder.mkdir(parents=True)
    for i, record in enumerate(written):
        (folder / f"{i}.json").write_text(json.dumps(record))
    numbers = table.merge_defaults(tmp_path / "ul", tmp_path / "none")
    assert (numbers["rate_bpp"], numbers["frechet"]) == (0.5, 1.0)


BREAKS = (
    Break(
        "a trial finished with another config counts as finished",
        "ul/sweeps/records.py",
        'record is not None and record.get("digests") == digests',
        "record is not None",
        "test_a_trial_is_finished_with_its_own_config_alone",
    ),
    Break(
        "a sweep continued with another config file",
        "ul/sweeps/records.py",
        'for name in saved["configs"].keys() & record["configs"].keys():',
        "for name in ():",
        "test_a_config_file_that_changed_is_refused",
    ),
)
