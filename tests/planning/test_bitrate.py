"""The planner: its numbers, its words, its picture, and what it refuses."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ul.core.errors import ConfigError, StorageError
from ul.data import datasets
from ul.diffusion import waterfilling
from ul.metrics.reconstruction import covariance_spectrum
from ul.planning import bitrate
from ul.stages import registry

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "experiments" / "digits.py"
FACTORS, BIASES = (1.5, 2.0), (0.0, 2.0, 4.0)


def parsed(variant="stage1", **loss):
    plain = registry.to_dict(
        importlib.import_module("experiments.digits").get_config(variant)
    )
    plain["loss"] |= loss
    return registry.parse(plain)


@pytest.fixture(scope="module")
def plan():
    return bitrate.prepare(parsed(), FACTORS, BIASES)


def table(text):
    """Cells of each row of the Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:]]


def test_rows_are_water_filling_of_the_training_images(plan):
    image = datasets.collect(parsed(), "train", 10_000)["image"]
    variances = covariance_spectrum(image)
    for r in plan.rows:
        precision = waterfilling.posterior_precision(r.factor, r.bias)
        error = waterfilling.distortion(variances, precision) / 64
        bits = waterfilling.rate_bits(variances, precision)
        np.testing.assert_allclose(r.bpp, bits / 64, rtol=1e-9)
        np.testing.assert_allclose(r.psnr_mean_db, 10 * np.log10(4 / error))
        np.testing.assert_allclose(r.psnr_sampled_db, 10 * np.log10(2 / error))
        assert r.coded == waterfilling.coded_directions(variances, precision)
    np.testing.assert_allclose(plan.own.bpp, 1.130, atol=5e-4)


def test_the_table_has_each_point_and_the_config_once(plan):
    rows = table(bitrate.markdown(plan))
    assert [r[:2] for r in rows] == [
        [f"{f:g}", f"{b:g}"] for f in FACTORS for b in BIASES
    ]
    assert [r[-1] for r in rows] == ["", "", "", "", "", "<- this config"]
    assert rows[-1][2:6] == ["1.1301", "24.53", "21.52", "46"]


def test_a_config_off_the_grid_is_added_and_marked_once():
    found = bitrate.prepare(parsed(factor=1.8, bias=3.25), FACTORS, BIASES)
    rows = table(bitrate.markdown(found))
    assert len(rows) == 7
    assert [r[:2] for r in rows if r[-1]] == [["1.8", "3.25"]]


def test_what_the_numbers_rest_on_is_said(plan):
    text = bitrate.markdown(plan)
    assert "Exact for Gaussian data and ideal networks" in text
    assert "covariance of 1437 whole images." in text
    assert "(4x4x4 = 64) is not counted in" in text
    assert bitrate.measured_ratios() in text


def test_measured_over_predicted_is_a_range_for_each_data_set():
    rows = [
        bitrate.Measured("a", 2.0, 1.0, 1.0, 0.5),
        bitrate.Measured("a", 2.0, 2.0, 2.0, 1.5),
        bitrate.Measured("b", 2.0, 1.0, 0.5, 0.4),
    ]
    assert (
        bitrate.measured_ratios(rows) == "0.50 to 0.75 (a, 2 runs) and 0.80 (b, 1 run)"
    )


def test_the_latents_limit_costs_rate_and_psnr(plan):
    small = parsed()
    small = dataclasses.replace(small, encoder=small.encoder | {"latent_channels": 1})
    tight = bitrate.prepare(small, FACTORS, BIASES, latent_limit=True)
    wide = bitrate.prepare(parsed(), FACTORS, BIASES, latent_limit=True)
    assert wide.rows == plan.rows  # as many elements as numbers
    assert tight.own.coded == 16 and plan.own.coded == 46
    assert tight.own.bpp < plan.own.bpp
    assert tight.own.psnr_sampled_db < plan.own.psnr_sampled_db
    assert "At most 16 directions" in bitrate.markdown(tight)


@pytest.mark.parametrize("limit", [False, True])
@pytest.mark.parametrize("estimator", ["covariance", "patches", "radial"])
def test_a_target_is_met_by_both_overrides(estimator, limit, monkeypatch):
    monkeypatch.setattr(bitrate.spectra, "PATCH_DIMENSIONS", 16)  # four an image
    c = parsed()
    c = dataclasses.replace(c, encoder=c.encoder | {"patch": 2, "latent_channels": 2})
    c = dataclasses.replace(c, decoder=c.decoder | {"patch": 2})
    how = dict(estimator=estimator, latent_limit=limit)
    found = bitrate.prepare(c, FACTORS, BIASES, **how)
    said = re.findall(r"--config\.loss\.(\w+)=(\S+)", bitrate.proposals(found, 0.1))
    assert [name for name, _ in said] == ["bias", "factor"]
    for name, value in said:
        loss = dataclasses.replace(c.loss, **{name: float(value)})
        changed = dataclasses.replace(c, loss=loss)
        again = bitrate.prepare(changed, FACTORS, BIASES, **how)
        np.testing.assert_allclose(again.own.bpp, 0.1, rtol=1e-3)


def test_a_target_that_no_factor_reaches_is_said():
    found = bitrate.prepare(parsed(bias=40.0), FACTORS, BIASES)
    text = bitrate.proposals(found, 0.1)
    assert (
        "--config.loss.weighting.bias=" in text
        and "at bias 40 no factor reaches it" in text
    )


def test_large_images_get_the_radial_model_and_fewer_examples(monkeypatch):
    monkeypatch.setattr(bitrate.spectra, "MOST_DIMENSIONS", 63)
    monkeypatch.setattr(bitrate, "NUMBERS", 64 * 100)
    said = bitrate.prepare(parsed(), FACTORS, BIASES).spectrum.estimator
    assert "stationary" in said and "100 images" in said
    with pytest.raises(ConfigError, match="use radial or patches"):
        bitrate.prepare(parsed(), FACTORS, BIASES, estimator="covariance")


def test_a_part_of_the_examples_is_drawn_from_all(monkeypatch):
    """Not the first: a folder's images are in the order of their classes."""
    seen = []
    monkeypatch.setattr(
        bitrate.splits,
        "read",
        lambda examples, indices, title: seen.extend(indices) or _blank(indices),
    )
    bitrate.prepare(parsed(), FACTORS, BIASES, examples=100)
    assert len(set(seen)) == 100 and max(seen) > 1000


def _blank(indices):
    return {"image": np.random.default_rng(0).integers(0, 255, (len(indices), 8, 8, 1))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(factors=(1.0,)), "--factors is .* numbers above 1"),
        (dict(factors=()), "--factors"),
        (dict(factors=(float("nan"),)), "--factors"),
        (dict(biases=(float("inf"),)), "--biases"),
        (dict(biases=(1e9,)), "precision beyond"),
        (dict(estimator="cepstrum"), "known are auto, covariance, patches, radial"),
        (dict(examples=1), "--examples is 1; it must be at least 2"),
    ],
)
def test_arguments_out_of_range_are_said_before_reading(given, message, monkeypatch):
    monkeypatch.setattr(bitrate.splits, "plain_train", None)
    with pytest.raises(ConfigError, match=message):
        bitrate.prepare(parsed(), **(dict(factors=FACTORS, biases=BIASES) | given))


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_must_be_positive(plan, target):
    with pytest.raises(ConfigError, match="--target_bpp"):
        bitrate.proposals(plan, target)


def test_another_stage_is_refused():
    with pytest.raises(ConfigError, match="stage 'base'.*give a stage-1 one"):
        bitrate.prepare(parsed("stage2"), FACTORS, BIASES)


def test_a_picture_is_drawn_also_without_any_bits(tmp_path):
    """At bias -9 the config's own point has no bits, and neither has the grid."""
    found = bitrate.prepare(parsed(bias=-9.0), (1.3,), (-9.0,), latent_limit=True)
    assert found.own.bpp == 0.0
    path = tmp_path / "new" / "plan.png"
    bitrate.draw(found, str(path), "nothing")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 1000


def test_a_picture_that_cannot_be_written_is_an_error_of_storage(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        bitrate.draw(plan, str(tmp_path / "file" / "plan.png"), "digits")


def test_the_command_prints_the_table_and_draws(tmp_path):
    args = ("bitrate", "--target-bpp", "0.6", "--config.loss.weighting.bias=3.5")
    done = subprocess.run(
        [sys.executable, "-m", "launch.plan", f"--config={DIGITS}:stage1", *args],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [r[:2] for r in table(done.stdout) if r[-1]] == [["2", "3.5"]]
    assert "--config.loss.weighting.bias=2.8465" in done.stdout
    assert "reading" in done.stderr  # the bar
    with Image.open(tmp_path / "plan-digits-stage1.png") as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image))) > 50


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("bitrat",), "known are bitrate"),
        ((), "known are bitrate"),
        (("bitrate", "more"), "unexpected argument 'more'"),
        (("bitrate", "--target_bpp=0"), "--target_bpp is 0.0"),
        (("bitrate", "--factors=1.5,1"), "--factors is [1.5, 1.0]"),
        (("bitrate", "--spectrum=cepstrum"), "auto|covariance|patches|radial"),
        (("bitrate", "--factors=one"), "--factors ['one'] are not numbers"),
        (("bitrate", "--out=plan.jpg"), "--out is plan.jpg; it must end in .png"),
        (("bitrate", f"--config={DIGITS}:stage2"), "give a stage-1 one"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_mistakes_cost_one_line(tmp_path, args, message, monkeypatch, capsys):
    """As the command does it, without starting Python for each."""
    from absl import flags

    from launch import plan
    from launch.lib import cli

    monkeypatch.setattr(sys, "argv", ["plan", f"--config={DIGITS}:stage1", *args])
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(SystemExit) as e:
            cli.run(plan.COMMANDS)
    finally:
        for name in ("target_bpp", "spectrum", "factors", "out"):
            flags.FLAGS[name].unparse()
        flags.FLAGS.mark_as_parsed()
    said = capsys.readouterr().err.strip()
    assert e.value.code == 64 and message in said and "\n" not in said
    assert not list(tmp_path.iterdir())
