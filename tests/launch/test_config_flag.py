"""--config: overrides, and kinds that are changed on the command line."""

import os

import numpy as np
import pytest
import skimage
from absl import flags

from launch.lib.config_flag import define_config
from ul.core.errors import ConfigError
from ul.data.datasets import Datasets
from ul.diffusion.samplers import METHODS
from ul.stages import kinds, registry

# ml_collections loads config files by a deprecated method of importlib.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

# An experiment that has the section.
EXPERIMENTS = {
    "data.source": "folder.py:stage1",
    "encoder": "digits.py:stage1",
    "decoder": "digits.py:stage1",
    "prior": "digits.py:stage1",
    "base": "digits.py:stage2",
    "schedule": "digits.py:stage2",
    "prior_schedule": "digits.py:stage1",
    "decoder_schedule": "digits.py:stage1",
    "loss.weighting": "digits.py:stage2",
    "max_logsnr": "single_stage.py:random_noise",
    "distillation": "digits.py:distill",
}
FOLDER = {path: () for path in EXPERIMENTS} | {
    "data.source": ("--config.data.source.path=/data/x",)
}
# Settings that have no default.
REQUIRED = {"path": "/data/x", "captions": "/data/c", "eval_path": "/data/y"}
REQUIRED |= {"num_calls": 2}
# The sampler of a student follows from its objective.
FITTING = {"moment_matching": ("--config.sampling.kind=renoise",)}


def read(experiment, *overrides):
    """The config that a command with these arguments gets."""
    argv = ["command", f"--config=experiments/{experiment}", *overrides]
    values = flags.FlagValues()
    read_config = define_config(flag_values=values, argv=argv)
    values(argv)
    return read_config()


ALL_KINDS = [
    (path, kind)
    for path, choices in kinds.SECTIONS.items()
    for kind in choices.constructors
]


def section_of(config, path):
    for part in path.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(("path", "kind"), ALL_KINDS)
def test_every_kind_can_be_chosen_from_its_defaults(path, kind):
    settings = kinds.SECTIONS[path].settings(path, kind)
    given = [f"--config.{path}.{k}={v}" for k, v in REQUIRED.items() if k in settings]
    given += FITTING.get(kind, ())
    config = read(EXPERIMENTS[path], f"--config.{path}.kind={kind}", *given)
    section = section_of(config, path)
    assert section["kind"] == kind and section.keys() == {"kind", *settings}
    is_changed = (
        section_of(read(EXPERIMENTS[path], *FOLDER[path]), path)["kind"] != kind
    )
    for name, default in settings.items():
        if is_changed and name not in REQUIRED and default is not kinds.REQUIRED:
            assert section[name] in (default, os.path.expanduser(str(default)))
    if path != "data.source":
        registry.build(config)


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_every_sampler_can_be_chosen(kind):
    config = read("digits.py:stage1", f"--config.sampling.kind={kind}")
    assert registry.build(config).sampling.kind == kind


def test_another_source_starts_from_its_defaults_and_can_be_read(tmp_path):
    image = np.arange(4 * 32 * 32 * 3, dtype=np.uint8).reshape(4, 32, 32, 3)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", image=image, label=np.zeros(4, np.int32))
    config = read(
        "folder.py:stage1",
        "--config.data.source.kind=arrays",
        f"--config.data.source.path={tmp_path / 'a.npz'}",
        f"--config.data.source.eval_path={tmp_path / 'b.npz'}",
    )
    assert "holdout" not in config.data.source
    assert len(Datasets.from_config(config).eval) == 4


def test_settings_of_the_old_kind_are_unknown_and_missing_ones_are_named():
    with pytest.raises((ConfigError, AttributeError, KeyError), match="holdout"):
        read(
            "folder.py:stage1",
            "--config.data.source.kind=gaussian",
            "--config.data.source.holdout=0.2",
        )
    config = read("folder.py:stage1", "--config.data.source.kind=arrays")
    with pytest.raises(ConfigError, match="data.source.eval_path is required"):
        Datasets.from_config(config).source("train")
    with pytest.raises(ConfigError, match="must be one of .*; got 'nonsense'"):
        read("folder.py:stage1", "--config.data.source.kind=nonsense")


def test_a_kind_that_is_not_changed_keeps_the_settings_of_the_file():
    config = read(
        "folder.py:stage1",
        "--config.data.source.kind=folder",
        f"--config.data.source.path={skimage.data_dir}",
        "--config.data.source.holdout=0.2",
    )
    assert config.data.source["holdout"] == 0.2
    assert config.data.source["max_bad_fraction"] == 0.01


def test_defaults_that_a_file_leaves_out_can_be_overridden():
    config = read("digits.py:stage1", "--config.prior.factorized=False")
    assert config.prior["factorized"] is False
