"""The scale of the latents, and settings of stage 2 that are relative to it."""

import dataclasses
import json
import math

import numpy as np
import pytest
from etils import epath

from tests.lib import untrained
from tests.lib.breaks import Break
from ul.core.errors import ConfigError, DataError
from ul.data import datasets as examples_of
from ul.inference import api
from ul.inference import weights as saved_weights
from ul.runs import latent_statistics, session
from ul.stages import registry


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    """Return an untrained stage 1."""
    folder = tmp_path_factory.mktemp("runs") / "s1"
    return untrained.leave(folder, untrained.parsed("digits", "smoke"), (2,))


def stage2_config(stage1, **changes):
    below = {"workdir": stage1, "step": 2, "weights": "ema"}
    return untrained.parsed("digits", "smoke2", stage1=below, **changes)


def test_the_variance_is_that_around_the_mean_of_each_element(stage1):
    ae = api.load_autoencoder(stage1)
    measured = latent_statistics.measure(ae.datasets, ae, None, 256)
    train = ae.datasets.unaugmented_train
    indices = examples_of.fixed_subset(len(train), latent_statistics.MAX_EXAMPLES)
    z = ae.encode(examples_of.read(train, indices.tolist())["image"]).astype(np.float64)
    np.testing.assert_allclose(measured["variance"], z.var(0).mean(), rtol=5e-3)
    np.testing.assert_allclose(
        np.square(measured["std_by_channel"]), z.var(0).mean((0, 1)), rtol=2e-2
    )
    assert measured["num_examples"] == 1024


def test_equal_latents_are_refused(stage1, monkeypatch):
    ae = api.load_autoencoder(stage1)
    constant = dataclasses.replace(
        ae.codec, latent=lambda p, x, row, key: 0.0 * x[..., :1]
    )
    stage = dataclasses.replace(ae.stage, codec=constant)
    with pytest.raises(DataError, match="must differ"):
        latent_statistics.measure(
            ae.datasets, dataclasses.replace(ae, stage=stage), None, 256
        )


@pytest.mark.parametrize("variance", [1.0, 0.06])
def test_settings_are_those_of_latents_of_variance_one(stage1, variance):
    """The signal of latents of variance v is v times as strong as that of variance 1."""
    sampling = untrained.parsed("digits", "smoke2").sampling
    config = stage2_config(stage1, latent_variance=variance)
    config = dataclasses.replace(
        config, sampling=dataclasses.replace(sampling, logsnr_min=-7.0)
    )
    stage, shift = registry.build(config), -math.log(variance)
    assert stage.weighting.bias == pytest.approx(config.loss.weighting["bias"] + shift)
    low, high = config.guidance.logsnr_low, config.guidance.logsnr_high
    assert stage.sampler.interval == pytest.approx((low + shift, high + shift))
    sampler = stage.sampler.sampler
    assert sampler.grid.ends(sampler.schedule) == pytest.approx((-7.0 + shift, 5.0))


def test_a_run_measures_once_and_keeps_what_it_measured(stage1, tmp_path):
    config = stage2_config(stage1)
    run, provenance = session.build_run(config, {})
    variance = provenance["latents"]["variance"]
    assert 0 < variance != 1.0
    again, kept = session.build_run(config, {"latents": {"variance": 0.25}})
    assert kept["latents"] == {"variance": 0.25}
    workdir = untrained.leave(tmp_path / "s2", config, (2,))
    stage = saved_weights.load_run(workdir).stage
    expected = config.loss.weighting["bias"] - math.log(variance)
    assert stage.weighting.bias == pytest.approx(expected)


def test_a_run_of_an_older_version_goes_on_as_it_began(stage1, tmp_path):
    """Its config.json lacks the newer settings, and its latents were never measured."""
    config = stage2_config(stage1)
    run, provenance = session.build_run(config, {})
    provenance |= session.run_provenance(run)
    del provenance["latents"]
    older = json.loads(json.dumps(dataclasses.asdict(config)))
    del older["latent_variance"]
    for section, names in (
        ("optimizer", ("kind", "schedule", "decay_fraction")),
        ("sampling", ("grid", "logsnr_max", "logsnr_min", "nats_per_logsnr")),
    ):
        for name in names:
            del older[section][name]
    path = epath.Path(tmp_path)
    session.write_config(path, older, provenance, allow_changes=False)
    kept = session._keep_latent_scale(config, provenance)
    assert kept.latent_variance == 1.0
    assert session._keep_latent_scale(config, {}).latent_variance is None
    settings = dataclasses.asdict(kept)
    session.write_config(path, settings, provenance, allow_changes=False)
    with pytest.raises(ConfigError, match="optimizer.kind: 'adamw' -> 'muon'"):
        settings["optimizer"]["kind"] = "muon"
        session.write_config(path, settings, provenance, allow_changes=False)


BREAKS = (
    Break(
        "new settings that look like changes of an older run",
        "ul/runs/session.py",
        "return dataclasses.asdict(registry.parse(registry.to_dict(saved)))",
        "return saved",
        "test_a_run_of_an_older_version_goes_on_as_it_began",
    ),
    Break(
        "a variance around the common mean of all elements",
        "ul/runs/latent_statistics.py",
        "variances = z.astype(np.float64).var(axis=0)",
        "variances = z.astype(np.float64).var() * np.ones(z.shape[1:])",
        "test_the_variance_is_that_around_the_mean_of_each_element",
    ),
    Break(
        "settings moved the wrong way",
        "ul/stages/generator.py",
        "else -math.log(variance)",
        "else math.log(variance)",
        "test_settings_are_those_of_latents_of_variance_one",
    ),
    Break(
        "an evaluation that does not know the measured variance",
        "ul/inference/weights.py",
        "latent_variance=measured)",
        "latent_variance=1.0)",
        "test_a_run_measures_once_and_keeps_what_it_measured",
    ),
)
