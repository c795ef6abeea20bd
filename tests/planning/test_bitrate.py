"""The bitrate planner: its numbers, its texts, its picture, and what it refuses."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lib import forks, untrained
from ul.core.errors import ConfigError, StorageError
from ul.data import datasets
from ul.data.datasets import Datasets
from ul.diffusion import waterfilling
from ul.metrics.reconstruction import covariance_spectrum
from ul.planning import bitrate
from ul.runs import session
from ul.stages import registry

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "experiments" / "digits.py"
FACTORS, BIASES = (1.5, 2.0), (0.0, 2.0, 4.0)


def parse_digits(variant="stage1", **weighting):
    """Return a config of digits with some settings of its weighting changed."""
    settings = untrained.settings("digits", variant)
    settings["loss"]["weighting"] |= weighting
    return registry.parse(settings)


def make_plan(config, *arguments, **options):
    datasets = Datasets.from_config(config)
    return bitrate.make_plan(registry.build(config), datasets, *arguments, **options)


@pytest.fixture(scope="module")
def plan():
    return make_plan(parse_digits(), FACTORS, BIASES)


def table_rows(text):
    """Return the cells of each row of the Markdown table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:]]


def test_predictions_are_water_filling_of_the_training_images(plan):
    image = untrained.datasets("digits", "stage1").collect("train", 10_000)["image"]
    variances = covariance_spectrum(image)
    for p in plan.predictions:
        precision = waterfilling.posterior_precision(p.factor, p.bias)
        error = waterfilling.distortion(variances, precision) / 64
        bits = waterfilling.rate_bits(variances, precision)
        np.testing.assert_allclose(p.bpp, bits / 64, rtol=1e-9)
        np.testing.assert_allclose(p.mean_psnr_db, 10 * np.log10(4 / error))
        np.testing.assert_allclose(p.sample_psnr_db, 10 * np.log10(2 / error))
        assert p.num_coded == waterfilling.coded_directions(variances, precision)
    np.testing.assert_allclose(plan.config_prediction.bpp, 1.130, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "variant", "bpp"),
    [
        ("digits", "stage1", 1.130),
        ("digits", "stage2", None),  # its rate is that of its stage 1
        ("ablations", "kl_autoencoder", None),  # no prediction for this loss
        ("moving_digits", "stage1", None),  # nor for clips
    ],
)
def test_a_run_shows_the_rate_of_its_plan(name, variant, bpp):
    stage, datasets = (
        untrained.stage(name, variant),
        untrained.datasets("digits", "stage1"),
    )
    planned = bitrate.planned_rate_bpp(stage, datasets)
    assert planned == (bpp if bpp is None else pytest.approx(bpp, abs=5e-4))


def test_a_resumed_run_reads_no_images_for_its_plan():
    config = untrained.parsed("digits", "smoke")
    run, provenance = session.build_run(config, {}, lambda stage, datasets: 0.7)
    assert run.planned_rate_bpp == 0.7
    run, again = session.build_run(config, provenance, lambda *_: 1 / 0)
    assert run.planned_rate_bpp == 0.7 and again == provenance
    loss = {"weighting": {"bias": 1.0}}
    config = untrained.parsed("digits", "smoke", loss=loss)
    run, _ = session.build_run(config, provenance, lambda stage, datasets: 0.3)
    assert run.planned_rate_bpp == 0.3


def test_the_table_has_each_pair_once_and_marks_the_config(plan):
    rows = table_rows(bitrate.to_markdown(plan))
    assert [r[:2] for r in rows] == [
        [f"{f:g}", f"{b:g}"] for f in FACTORS for b in BIASES
    ]
    assert [r[-1] for r in rows] == ["", "", "", "", "", "<- this config"]
    assert rows[-1][2:6] == ["1.1301", "24.53", "21.52", "46"]


def test_a_config_off_the_grid_is_added_and_marked_once():
    plan = make_plan(parse_digits(factor=1.8, bias=3.25), FACTORS, BIASES)
    rows = table_rows(bitrate.to_markdown(plan))
    assert len(rows) == 7
    assert [r[:2] for r in rows if r[-1]] == [["1.8", "3.25"]]


def test_the_assumptions_are_stated(plan):
    text = bitrate.to_markdown(plan)
    assert "exact for Gaussian data and ideal networks" in text
    assert "covariance of 1437 whole images." in text
    assert "At most 64 directions are coded, as many as the latent (4x4x4)" in text
    assert "experiments/RESULTS.md compares predicted with measured rates" in text
    assert (ROOT / "experiments/RESULTS.md").is_file()


def test_the_latent_limit_costs_rate_and_psnr(plan):
    small = parse_digits()
    small = dataclasses.replace(small, encoder=small.encoder | {"latent_channels": 1})
    tight = make_plan(small, FACTORS, BIASES, latent_limit=True)
    wide = make_plan(parse_digits(), FACTORS, BIASES, latent_limit=True)
    # This latent has as many elements as an image has values.
    assert wide.predictions == plan.predictions
    limited, unlimited = tight.config_prediction, plan.config_prediction
    assert limited.num_coded == 16 and unlimited.num_coded == 46
    assert limited.bpp < unlimited.bpp
    assert limited.sample_psnr_db < unlimited.sample_psnr_db
    assert "At most 16 directions" in bitrate.to_markdown(tight)


@pytest.mark.parametrize("limit", [False, True])
@pytest.mark.parametrize("estimator", ["covariance", "patches", "radial"])
def test_both_overrides_reach_the_target(estimator, limit, monkeypatch):
    # Four patches make up an image.
    monkeypatch.setattr(bitrate.spectra, "MAX_PATCH_VALUES", 16)
    c = parse_digits()
    c = dataclasses.replace(c, encoder=c.encoder | {"patch": 2, "latent_channels": 2})
    c = dataclasses.replace(c, decoder=c.decoder | {"patch": 2})
    options = dict(estimator=estimator, latent_limit=limit)
    plan = make_plan(c, FACTORS, BIASES, **options)
    text = bitrate.propose_overrides(plan, 0.1)
    overrides = re.findall(r"--config\.loss\.weighting\.(\w+)=(\S+)", text)
    assert [name for name, _ in overrides] == ["bias", "factor"]
    for name, value in overrides:
        weighting = c.loss.weighting | {name: float(value)}
        loss = dataclasses.replace(c.loss, weighting=weighting)
        changed = dataclasses.replace(c, loss=loss)
        new_plan = make_plan(changed, FACTORS, BIASES, **options)
        np.testing.assert_allclose(new_plan.config_prediction.bpp, 0.1, rtol=1e-3)


def test_a_target_that_no_factor_reaches_is_reported():
    plan = make_plan(parse_digits(bias=40.0), FACTORS, BIASES)
    text = bitrate.propose_overrides(plan, 0.1)
    assert "--config.loss.weighting.bias=" in text
    assert "At bias 40 no loss factor reaches this rate" in text


def test_large_images_get_the_radial_model_and_fewer_examples(monkeypatch):
    monkeypatch.setattr(bitrate.spectra, "MAX_IMAGE_VALUES", 63)
    monkeypatch.setattr(bitrate, "MAX_VALUES", 64 * 100)
    plan = make_plan(parse_digits(), FACTORS, BIASES)
    assert "stationary" in plan.spectrum.description
    assert "100 images" in plan.spectrum.description
    with pytest.raises(ConfigError, match="Use --spectrum=radial or --spectrum=pa"):
        make_plan(parse_digits(), FACTORS, BIASES, estimator="covariance")


def test_a_subset_of_the_examples_is_drawn_from_all_of_them(monkeypatch):
    """The first ones would not do, because a folder lists its images class by class."""
    indices_read = []

    def read(examples, indices, title):
        indices_read.extend(indices)
        rng = np.random.default_rng(0)
        return {"image": rng.integers(0, 255, (len(indices), 8, 8, 1))}

    monkeypatch.setattr(datasets, datasets.read.__name__, read)
    make_plan(parse_digits(), FACTORS, BIASES, num_examples=100)
    assert len(set(indices_read)) == 100 and max(indices_read) > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(factors=(1.0,)), r"--factors .* numbers above 1; got \[1.0\]"),
        (dict(factors=()), "--factors"),
        (dict(factors=(float("nan"),)), "--factors"),
        (dict(biases=(float("inf"),)), "--biases"),
        (dict(biases=(1e9,)), "precision must fit into float64"),
        (
            dict(estimator="cepstrum"),
            "one of auto, covariance, patches, radial, natural; got",
        ),
        (dict(num_examples=1), "--examples must be at least 2; got 1"),
    ],
)
def test_arguments_out_of_range_are_refused_before_reading(
    arguments, message, monkeypatch
):
    def fail(*_):
        raise AssertionError("images were read")

    monkeypatch.setattr(bitrate, "_training_images", fail)
    defaults = dict(factors=FACTORS, biases=BIASES)
    with pytest.raises(ConfigError, match=message):
        make_plan(parse_digits(), **(defaults | arguments))


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_must_be_positive(plan, target):
    with pytest.raises(ConfigError, match="--target_bpp must be a positive number"):
        bitrate.propose_overrides(plan, target)


def test_a_config_of_another_stage_is_refused():
    with pytest.raises(ConfigError, match="stage 'base'.*Pass a stage-1 config"):
        make_plan(parse_digits("stage2"), FACTORS, BIASES)


def test_a_picture_is_drawn_even_if_nothing_gets_any_bits(tmp_path):
    """At bias -9 neither the config's own pair nor the grid gets any bits."""
    plan = make_plan(parse_digits(bias=-9.0), (1.3,), (-9.0,), latent_limit=True)
    assert plan.config_prediction.bpp == 0.0
    path = tmp_path / "new" / "plan.png"
    bitrate.draw(plan, str(path), "nothing")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 1000


def test_a_picture_that_cannot_be_written_is_a_storage_error(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written to"):
        bitrate.draw(plan, str(tmp_path / "file" / "plan.png"), "digits")


def test_the_command_prints_the_table_and_draws(tmp_path):
    args = ("bitrate", "--target-bpp", "0.6", "--config.loss.weighting.bias=3.5")
    words = ["plan", f"--config={DIGITS}:stage1", *args]
    (done,) = forks.run_all([words], cwd=tmp_path)
    assert done.code == 0, done.err
    assert [r[:2] for r in table_rows(done.out) if r[-1]] == [["2", "3.5"]]
    assert "--config.loss.weighting.bias=2.8465" in done.out
    assert "reading" in done.err  # the progress bar
    with Image.open(tmp_path / "plan-digits-stage1.png") as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image))) > 50


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("bitrat",), "one of bitrate"),
        ((), "one of bitrate"),
        (("bitrate", "more"), "Unexpected argument 'more'"),
        (("bitrate", "--target_bpp=0"), "a positive number; got 0.0"),
        (("bitrate", "--factors=1.5,1"), "numbers above 1; got [1.5, 1.0]"),
        (("bitrate", "--spectrum=cepstrum"), "auto|covariance|patches|radial"),
        (("bitrate", "--factors=one"), "--factors must be numbers; got ['one']"),
        (("bitrate", "--out=plan.jpg"), "--out must end in .png; got plan.jpg"),
        (("bitrate", f"--config={DIGITS}:stage2"), "Pass a stage-1 config"),
    ],
)
def test_mistakes_print_one_line(command, args, message):
    out = command("plan", f"--config={DIGITS}:stage1", *args, code=64).strip()
    assert message in out and "\n" not in out
    assert not (ROOT / "plan.jpg").exists()
