"""The lines that say what a run reads, and the mistakes that they reveal."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lib.untrained import parsed
from ul.core.errors import ConfigError
from ul.data import summary
from ul.data.datasets import Datasets
from ul.stages import registry


def write_images(folder: Path, **classes: int) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")


def folder_config(path, **changes):
    source = dict(kind="folder", path=str(path), holdout=0.1, max_bad_fraction=0.01)
    data = dict(source=source, image_shape=(8, 8, 3), num_classes=2) | changes
    return parsed("digits", "smoke", data=data | dict(flip=False, threads=2))


def report_of(path, **changes):
    datasets = Datasets.from_config(folder_config(path, **changes))
    for split in ("train", "eval"):
        datasets.source(split)
    return datasets.report()


def test_files_classes_and_skipped_files_are_reported(tmp_path):
    write_images(tmp_path, cat=20, dog=30)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / ".hidden.png").write_text("x")
    report = report_of(tmp_path)
    train, held_out = report["train"], report["eval"]
    assert list(report) == ["train", "eval"]
    assert train["examples"] + held_out["examples"] == 50
    assert {
        k: train["classes"][k] + held_out["classes"][k] for k in ("cat", "dog")
    } == {
        "cat": 20,
        "dog": 30,
    }
    lines = list(summary.lines(report))
    cats, dogs = train["classes"].values()
    assert lines[0] == (
        f"train: {cats + dogs} examples; 2 classes (cat {cats}, dog {dogs}); skipped files: "
        "1 hidden, 1 no image suffix (.txt)"
    )
    assert list(summary.warnings(report, 2)) == []


def test_more_classes_than_the_data_have_and_empty_classes_are_noticed(tmp_path):
    write_images(tmp_path / "few", cat=10, dog=10)
    (warning,) = summary.warnings(report_of(tmp_path / "few", num_classes=1000), 1000)
    assert "data.num_classes is 1000, but the data have 2 classes; 998" in warning
    write_images(tmp_path / "many", **{f"c{i}": 1 for i in range(31)})
    report = report_of(tmp_path / "many", num_classes=31)
    (warning,) = summary.warnings(report, 31)
    empty = sum(count == 0 for count in report["train"]["classes"].values())
    assert empty and f"{empty} of 31 classes have no training image" in warning


def test_paths_are_absolute_and_not_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = dataclasses.asdict(folder_config("data"))
    for path, expected in (
        ("data", str(tmp_path / "data")),
        ("~/data", "/home/me/data"),
        ("a:b/c", str(tmp_path / "a:b" / "c")),
        ("gs://bucket/data", "gs://bucket/data"),
    ):
        config["data"]["source"]["path"] = path
        assert registry.parse(config).data.source["path"] == expected
    config["data"]["source"]["path"] = ""
    with pytest.raises(ConfigError, match="it is empty, perhaps because a variable"):
        registry.parse(config)
