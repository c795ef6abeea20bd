"""A decoder on a frozen encoder: trained, resumed, evaluated, exported, built upon."""

import json

import jax
import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.breaks import Break
from tests.lib.commands import DIGITS
from ul.checkpoints import digests
from ul.core.errors import ConfigError
from ul.inference import api, export
from ul.runs import session
from ul.stages import registry
from ul.train import loop
from ul.train import state as states


def decoder_config(stage1, **changes):
    below = {"workdir": str(stage1), "step": None, "weights": "ema"}
    return untrained.parsed("digits", "smoke_decoder", stage1=below, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a stage 1 and a decoder on it, both untrained."""
    folder = tmp_path_factory.mktemp("decoder")
    stage1 = untrained.leave(folder / "s1", untrained.parsed("digits", "smoke"), (2,))
    sampling = dict(kind="ddim", num_steps=3)
    new = decoder_config(stage1, seed=1, sampling=sampling)
    untrained.leave(folder / "d", new, (2,))
    return folder / "s1", folder / "d"


@pytest.mark.slow
def test_the_command_trains_and_resumes(runs, tmp_path, command):
    words = ["train", f"--config={DIGITS}:smoke_decoder", f"--workdir={tmp_path / 'd'}"]
    words.append(f"--config.stage1.workdir={runs[0]}")
    command(*words, "--config.steps=4")
    command(*words, "--config.steps=8")
    assert ul.load_autoencoder(tmp_path / "d").step == 8


def parameters(ae, name):
    return jax.tree.leaves(ae.params[name])


def test_it_is_an_autoencoder_with_the_encoder_of_stage_1(runs):
    old, new = (ul.load_autoencoder(run, with_prior=True) for run in runs)
    for name in ("encoder", "prior"):
        for a, b in zip(parameters(old, name), parameters(new, name), strict=True):
            np.testing.assert_array_equal(a, b)
    images = old.datasets.chunks(old.datasets.eval, range(4), "")
    image = next(iter(images))["image"]
    np.testing.assert_array_equal(old.encode(image), new.encode(image))
    assert new.reconstruct(image).shape == image.shape
    assert np.any(new.reconstruct(image) != old.reconstruct(image))
    assert new.codec.decoder.sampler.method == "ddim"
    # Its bits are those of the prior of stage 1.
    np.testing.assert_array_equal(old.rate(image), new.rate(image))
    recorded = json.loads((runs[1] / "config.json").read_text())["provenance"]["stage1"]
    assert recorded["encoder"] == digests.fingerprint(new.params["encoder"])


@pytest.mark.slow
def test_the_evaluation_has_rate_and_reconstructions(runs, command):
    command("evaluate", f"--workdir={runs[1]}", "--num_examples=16")
    (file,) = (runs[1] / "evals").glob("*.json")
    numbers = json.loads(file.read_text())
    assert numbers["decoder"] == "sampled"
    for key in ("rate_bpp", "decoder_bpp", "psnr_db", "bound_bpd"):
        assert np.isfinite(numbers[key])


@pytest.mark.slow
def test_an_export_holds_both_and_gives_the_same(runs, tmp_path):
    export.export(runs[1], tmp_path / "out")
    image = np.zeros((2, 8, 8, 1), np.uint8)
    before, after = map(ul.load_autoencoder, (runs[1], tmp_path / "out"))
    np.testing.assert_array_equal(before.reconstruct(image), after.reconstruct(image))
    assert (tmp_path / "out" / "stage1" / "encoder.safetensors").exists()
    assert not (tmp_path / "out" / "encoder.safetensors").exists()


@pytest.mark.slow
def test_a_stage_2_can_be_built_on_it(runs, tmp_path):
    below = {"workdir": str(runs[1]), "step": None, "weights": "ema"}
    config = untrained.parsed("digits", "smoke2", stage1=below)
    workdir = untrained.leave(tmp_path / "s2", config, (2,))
    assert ul.load_generator(workdir).sample([1]).shape == (1, 8, 8, 1)


def test_it_starts_from_the_decoder_of_a_run_and_goes_on_without_it(runs):
    init = {
        "workdir": str(runs[0]),
        "networks": ("decoder",),
        "step": 2,
        "weights": "raw",
    }
    run, provenance = session.build_run(decoder_config(runs[0], init=init), {})
    assert provenance["init"] == {"workdir": str(runs[0]), "step": 2, "weights": "raw"}
    first = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
    state = states.replace_networks(first, run.initial())
    stored = api.load_autoencoder(runs[0], weights="raw")
    average = next(iter(state.ema.values()))
    for tree in (state.params, average):
        for a, b in zip(
            jax.tree.leaves(tree["decoder"]), parameters(stored, "decoder"), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert loop.Run.initial() == {}
    # A later start needs the other run no more, unless it has no checkpoint.
    gone = provenance["init"] | {"workdir": str(runs[0] / "gone")}
    _, kept = session.build_run(decoder_config(runs[0], init=init), {"init": gone})
    assert kept["init"] == gone


@pytest.mark.slow
def test_an_older_stage_2_can_use_the_new_decoder(runs, tmp_path):
    below = {"workdir": str(runs[0]), "step": 2, "weights": "ema"}
    config = untrained.parsed("digits", "smoke2", stage1=below)
    workdir = untrained.leave(tmp_path / "s2", config, (2,))
    new = ul.load_generator(workdir, stage1_workdir=str(runs[1]))
    assert new.autoencoder.stage.name == "decoder"
    assert np.any(new.sample([1]) != ul.load_generator(workdir).sample([1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_logsnr": 10.0}, "latent_logsnr must be 5.0, .*got 10.0"),
        ({"latent_shape": (4, 4, 8)}, "latent_shape must be "),
        ({"latent_shape": (2, 2, 4)}, "must have the same grid; got 2x2 and 4x4"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(runs, changes, message):
    with pytest.raises(ConfigError, match=message):
        session.build_run(decoder_config(runs[0], **changes), {})


def test_weights_that_do_not_fit_are_refused(runs):
    wide = untrained.settings("digits", "smoke_decoder")["decoder"] | {"width": 64}
    init = {
        "workdir": str(runs[0]),
        "networks": ("decoder",),
        "step": 2,
        "weights": "raw",
    }
    config = decoder_config(runs[0], init=init, decoder=wide)
    with pytest.raises(ConfigError, match="decoder of .* must be the network of this"):
        session.build_run(config, {})
    for names in ((), ("encoder",)):
        config = decoder_config(runs[0], init=init | {"networks": names})
        with pytest.raises(ConfigError, match=r"networks that are trained \(decoder\)"):
            session.build_run(config, {})


def test_another_stage_has_no_encoder(runs, tmp_path):
    config = untrained.parsed(
        "digits",
        "smoke2",
        stage1={"workdir": str(runs[0]), "step": 2, "weights": "ema"},
    )
    stage2 = untrained.leave(tmp_path / "s2", config, (2,))
    with pytest.raises(ConfigError, match="stage must be one of .*got 'base'"):
        session.build_run(decoder_config(stage2), {})


def test_the_batch_of_a_plan_is_that_of_training(runs):
    stage = registry.build(decoder_config(runs[0]))
    assert set(stage.batch) == {"image", "z_clean"}


BREAKS = (
    Break(
        "a separate decoder whose averages start at random",
        "ul/train/state.py",
        "ema={name: replaced(average) for name, average in state.ema.items()}",
        "ema=state.ema",
        "test_it_starts_from_the_decoder_of_a_run_and_goes_on_without_it",
    ),
    Break(
        "the decoder of stage 1 in place of the new one",
        "ul/stages/decoder.py",
        "codec = dataclasses.replace(stage1.codec, decoder=decoder, is_diffusion=True)",
        "codec = stage1.codec",
        "test_it_is_an_autoencoder_with_the_encoder_of_stage_1",
    ),
)
