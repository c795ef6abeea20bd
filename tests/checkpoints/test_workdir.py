"""What a resumed run may change."""

import json

import pytest

from ul.checkpoints import workdir
from ul.core.errors import ConfigError


def test_a_run_from_before_a_key_did_what_the_key_says():
    before = {"data": {"flip": True}}

    def now(augment):
        return {"data": {"flip": True, "augment": augment}}

    assert workdir.changed(before, now("stream")) == []
    assert workdir.changed(before, now("example")) == [
        "data.augment: 'stream' -> 'example'"
    ]


def test_settings_that_no_result_depends_on_are_free():
    before = {"log": {"every": 1}, "latents": None, "seed": 0}
    assert (
        workdir.changed(before, {"log": {"every": 2}, "latents": "x", "seed": 0}) == []
    )
    assert workdir.changed(before, before | {"seed": 1}) == ["seed: 0 -> 1"]


def test_an_export_is_not_trained_on(tmp_path):
    """Its config is the run's: training would begin again, beside the weights."""
    record = {"config": {"seed": 0}, "provenance": {}, "export": {"step": 8}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="is an export.*choose another --workdir"):
        workdir.claim(tmp_path, {"seed": 0}, {}, allow=True)
    del record["export"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    workdir.claim(tmp_path, {"seed": 0}, {}, allow=False)
