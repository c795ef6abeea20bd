"""Changes that a resumed run may make, and directories that training refuses."""

import json

import pytest

from tests.lib.breaks import Break
from ul.checkpoints import workdir
from ul.core.errors import ConfigError, DataError, NoProgress, StorageError


def test_a_key_that_only_one_config_has_is_a_change():
    without, with_key = {"data": {}}, {"data": {"augment": None}}
    changes = workdir.config_changes(without, with_key)
    assert changes == ["data.augment: not set -> None"]
    changes = workdir.config_changes(with_key, without)
    assert changes == ["data.augment: None -> not set"]


def test_settings_that_no_saved_weight_depends_on_may_change():
    saved = {"log": {"every": 1}, "latent_cache": None, "seed": 0}
    config = {"log": {"every": 2}, "latent_cache": "x", "seed": 0}
    assert workdir.config_changes(saved, config) == []
    assert workdir.config_changes(saved, saved | {"seed": 1}) == ["seed: 0 -> 1"]
    old, new = ({"base": {"attention": a, "depth": 2}} for a in ("xla", "auto"))
    assert workdir.config_changes(old, new) == []
    # A changeable key is a whole key or section, not the beginning of a name.
    assert workdir.config_changes(saved, saved | {"stepsize": 1}) == [
        "stepsize: not set -> 1"
    ]


def test_an_exported_model_cannot_be_trained_further(tmp_path):
    """Its config is the run's, so training would start again beside the weights."""
    record = {"config": {"seed": 0}, "provenance": {}, "export": {"step": 8}}
    record.pop("digest", None)
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="exported model.*choose another --workdir"):
        workdir.write_or_check_config(tmp_path, {"seed": 0}, {}, allow_changes=True)
    del record["export"]
    record.pop("digest", None)
    (tmp_path / "config.json").write_text(json.dumps(record))
    workdir.write_or_check_config(tmp_path, {"seed": 0}, {}, allow_changes=False)


def test_other_settings_data_and_encoders_are_refused(tmp_path, caplog):
    def start(config, data="a", encoder="e", teacher="t", **options):
        stage1 = {"workdir": "w", "step": 1, "weights": "ema", "encoder": encoder}
        provenance = {"data": data, "stage1": stage1, "teacher": {"decoder": teacher}}
        workdir.write_or_check_config(tmp_path, config, provenance, **options)

    start({"seed": 0}, allow_changes=False)
    with pytest.raises(ConfigError, match=r"seed: 0 -> 1.*--allow_changes"):
        start({"seed": 1}, allow_changes=False)
    with pytest.raises(ConfigError, match="the training examples: a -> b"):
        start({"seed": 0}, data="b", allow_changes=False)
    with pytest.raises(ConfigError, match="must be resumed with the encoder"):
        start({"seed": 0}, encoder="other", allow_changes=True)
    with pytest.raises(ConfigError, match="must be resumed with the decoder"):
        start({"seed": 0}, teacher="other", allow_changes=True)
    assert not caplog.records
    start({"seed": 1}, data="b", allow_changes=True)
    assert len([r for r in caplog.records if "changed setting" in r.message]) == 2


@pytest.mark.parametrize(
    ("content", "state"), [(None, "missing"), ("{", "unreadable"), ("{}", "unreadable")]
)
def test_a_directory_without_a_run_is_named(tmp_path, content, state):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=f"config.json is {state}. Pass the direct"):
        workdir.load_run_record(tmp_path)


def start(path, newest, max_attempts, error=None, is_new=False):
    with workdir.count_start(path, newest, max_attempts, is_new=is_new):
        if error is not None:
            raise error


def test_attempts_start_afresh_with_progress_and_at_the_end(tmp_path):
    for newest in (0, 0, 2, 2):
        start(tmp_path, newest, 2)
    with pytest.raises(NoProgress, match="beyond step 2"):
        start(tmp_path, 2, 2)
    start(tmp_path, 2, 0)
    workdir.clear_start_attempts(tmp_path)
    start(tmp_path, 2, 2)


def test_a_rejected_start_does_not_count_and_leaves_no_directory(tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / ".lock").touch()
    with pytest.raises(ConfigError):
        start(new, 0, 1, ConfigError("no"), is_new=True)
    assert not new.exists()
    for _ in range(3):
        with pytest.raises(DataError):
            start(tmp_path, 0, 1, DataError("no"))
    with pytest.raises(StorageError):
        start(tmp_path, 0, 1, StorageError("full"))
    with pytest.raises(NoProgress):
        start(tmp_path, 0, 1)


def test_a_changed_config_json_is_noticed_unless_its_digest_was_removed(tmp_path):
    workdir.write_or_check_config(tmp_path, {"seed": 7}, {}, allow_changes=False)
    path = tmp_path / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 7', '"seed": 3'))
    with pytest.raises(ConfigError, match='as the run wrote it.*remove its line "dig'):
        workdir.load_run_record(tmp_path)
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record))
    assert workdir.load_run_record(tmp_path)["config"] == {"seed": 3}


def test_no_flipped_bit_changes_a_setting_unnoticed(tmp_path):
    config = {"seed": 7, "loss": {"bias": 2.5}, "name": "x"}
    workdir.write_or_check_config(tmp_path, config, {"data": "ab"}, allow_changes=False)
    path = tmp_path / "config.json"
    content, expected = path.read_bytes(), workdir.load_run_record(tmp_path)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            found = workdir.load_run_record(tmp_path)
        except ConfigError:
            continue
        assert found["config"] == expected["config"]
        assert found["provenance"] == expected["provenance"]


BREAKS = (
    Break(
        "a run resumed with other data",
        "ul/checkpoints/workdir.py",
        "if before != now:",
        "if False:",
        "test_other_settings_data_and_encoders_are_refused",
    ),
    Break(
        "a stage 2 resumed with another encoder",
        "ul/checkpoints/workdir.py",
        "saved[network] != current[network]",
        "False",
        "test_other_settings_data_and_encoders_are_refused",
    ),
)
