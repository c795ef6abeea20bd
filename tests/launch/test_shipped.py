"""Shipped configs and sweeps are found by name, other files by path."""

import threading
from pathlib import Path

import pytest

from launch.lib import files, mistakes, shipped
from ul.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_a_name_is_a_shipped_file_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # does not hide the shipped config
    resolved = shipped.resolve("--config", "digits:stage1", "get_config")
    assert resolved == f"{ROOT}/experiments/digits.py:stage1"
    config = files.call_user_function("--config", "digits:smoke", "get_config")
    assert config.stage == "joint"
    assert files.call_user_function("The sweep", "bitrate", "get_sweep")


@pytest.mark.parametrize("path", ["mine.py:stage1", "./mine:x", "configs/mine.py"])
def test_a_path_stays_a_path(path):
    assert shipped.resolve("--config", path, "get_config") == path


def test_an_unknown_name_is_one_line_with_the_nearest_name():
    with pytest.raises(ConfigError, match="got 'digit'. Did you mean 'digits'?") as e:
        shipped.resolve("--config", "digit:stage1", "get_config")
    assert "\n" not in str(e.value) and "common" not in str(e.value)


def test_a_bucket_without_gcsfs_is_one_line(capsys):
    error = ImportError("Please install gcsfs to access Google Storage")
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)  # waited for by Python, as Orbax's are
    thread.start()
    try:
        with pytest.raises(SystemExit) as e:
            mistakes.exit_with(error, trace=False)
    finally:
        ended.set()
    assert e.value.code == 64
    assert "pip install '.[gcs]'" in capsys.readouterr().err
