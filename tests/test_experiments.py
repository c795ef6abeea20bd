"""Every experiment parses, builds, and traces one step of its smoke."""

import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage

from ul import config
from ul.core.errors import ConfigError
from ul.data import datasets
from ul.runs import assemble
from ul.stages import registry
from ul.train import state, step

FOLDER = skimage.data_dir  # a directory with images that is always there
VARIANTS = [
    (name, variant)
    for name in (
        "digits",
        "photos",
        "folder",
        "gaussian",
        "ablations",
        "single_stage",
        "imagenet512",
        "external",
        "captions",
        "text_to_image",
        "moving_digits",
        "kinetics600",
    )
    for variant in importlib.import_module(f"experiments.{name}").VARIANTS
]


def plain(name, variant):
    found = importlib.import_module(f"experiments.{name}").get_config(variant)
    if name == "folder":
        found.data.source.path = FOLDER
    return registry.plain(found)


def parsed(name, variant):
    return config.parse(plain(name, variant), config.RunConfig)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_parses_locks_and_survives_json(name, variant):
    assert importlib.import_module(f"experiments.{name}").get_config(variant).is_locked
    resolved = plain(name, variant)
    again = registry.plain(json.loads(json.dumps(resolved)))
    kind = config.RunConfig
    assert config.parse(again, kind) == config.parse(resolved, kind)


# Other data, or a shrunk one's twin: the same step.
SAME = (",tfds", "stage2_medium,smoke", "stage2_100,smoke", "stage2_300,smoke")
# The networks of another experiment on other data, or of another size.
TRACED = {
    ("captions", "stage1"),
    ("captions", "smoke"),
    ("text_to_image", "stage1"),
    ("text_to_image", "stage1,smoke"),
    ("text_to_image", "stage2_100"),
    ("text_to_image", "stage2_300"),
    ("kinetics600", "stage2_medium"),
    ("moving_digits", "smoke2"),
}


@pytest.mark.parametrize(
    ("name", "variant"),
    [both for both in VARIANTS if not both[1].endswith(SAME) and both not in TRACED],
)
def test_one_step_traces(name, variant):
    """Shapes only: no experiment is too large for this."""
    c = registry.portable(parsed(name, variant))
    if isinstance(c, config.ExternalConfig):
        made = registry.stage1(c).modules
        jax.eval_shape(lambda: made.init(jax.random.key(0), c.data.image_shape))
        return
    run = assemble.update(c, assemble.mesh(c))
    batch = assemble.abstract_batch(c, run.mesh)
    abstract = state.abstract(run.init, run.tx, run.decays, run.mesh)
    made = step.make(
        run.objective, run.tx, run.lr, root=run.root, accumulate=c.accumulate
    )
    after, seen = jax.eval_shape(made, abstract, batch)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), abstract
    )
    assert "loss_nats" in seen


def resized(name, variant, height, width):
    """The config with other sides and, of a stage 2, the latents that follow."""
    changed = plain(name, variant)
    was = changed["data"]["image_shape"]
    changed["data"]["image_shape"] = (height, width, was[2])
    if "latent_shape" in changed:
        rows, columns, channels = changed["latent_shape"]
        cell = was[0] // rows
        assert was[1] // columns == cell
        changed["latent_shape"] = (height // cell, width // cell, channels)
    return registry.portable(config.parse(changed, config.RunConfig))


@pytest.mark.parametrize(
    ("name", "variant", "height", "width"),
    [
        ("digits", "stage2", 12, 8),
        ("photos", "smoke", 32, 48),
        ("photos", "smoke2", 48, 16),
        ("ablations", "kl_autoencoder", 4, 8),
        ("single_stage", "pixels", 16, 8),
        ("external", "tiny", 16, 24),
    ],
)
def test_any_sides_by_config_alone(name, variant, height, width):
    """What is trained and what evaluations call, by shapes."""
    c = resized(name, variant, height, width)
    row, key = jnp.arange(2), jax.random.key(0)
    if isinstance(c, config.TrainConfig):
        run = assemble.update(c, assemble.mesh(c))
        batch, init = assemble.abstract_batch(c, run.mesh), run.init
        jax.eval_shape(lambda batch: run.objective(init(), batch, key, 0), batch)
    if isinstance(c, config.AutoencoderConfig):
        made = registry.stage1(c)
        image = jax.ShapeDtypeStruct((2, *c.data.image_shape), np.uint8)
        init = functools.partial(made.modules.init, key, c.data.image_shape)
        again = jax.eval_shape(
            lambda image: made.codec.reconstruct(init(), image, row, key), image
        )
        assert again.shape == (2, height, width, c.data.image_shape[2])
        rows, columns, _ = made.codec.latent_shape
        assert rows * width == columns * height
    else:
        sampler, fields = registry.latent_sampler(c), registry.conditions(c)
        asked = {k: jnp.zeros((2, *f.shape), f.dtype) for k, f in fields.items()}
        z_0 = jax.eval_shape(lambda: sampler.sample(init(), asked, row, key, 2.0))
        assert z_0.shape == (2, *registry.latent_shape(c))


def test_stages_of_other_sides_fit_each_other_and_their_data():
    below, above = (resized("photos", s, 32, 48) for s in ("stage1", "stage2"))
    registry.check_stage1(above, below)
    for split in ("train", "eval"):
        assert datasets.dataset(above, split)[0]["image"].shape == (32, 48, 3)
    with pytest.raises(ConfigError, match=r"latent_shape is \(8, 12, 8\) but"):
        registry.check_stage1(above, resized("photos", "stage1", 48, 32))


def test_an_unknown_variant_names_those_there_are():
    with pytest.raises(ValueError, match="stage1, stage2"):
        importlib.import_module("experiments.digits").get_config("stage3")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.chanels", (8,), "did you mean encoder.channels"),
        ("losss", {}, "did you mean loss"),
        ("loss.factor", 0.9, "loss.factor is 0.9; it must be above 1"),
        ("optimizer.lr", float("nan"), "optimizer.lr is nan"),
        ("steps", -5, "steps is -5"),
        ("steps", 2.5, "steps is 2.5; it must be of type int"),
        ("accumulate", 3, "64 is not divisible by accumulate 3"),
        ("dtype", "float16", "float32 or bfloat16"),
        ("stage", "three", "stage is 'three'"),
        ("decoder_schedule.kind", "sine", "known are"),
        ("data.source.kind", "imagenet", "known are"),
        ("sampling.method", "euler", "known are"),
        ("prior.head_dim", 7, "not an even multiple of head_dim 7"),
        ("prior.attention", "flash", "known are"),
        ("encoder.remat", "some", "encoder.remat is 'some'; known are"),
        ("prior.remat", True, "prior.remat is True; it must be of type str"),
        ("encoder.blocks", (1,), "same length"),
        ("encoder.blocks", (1, 0), "at least 1"),
        ("encoder.patch", 0, "encoder.patch is 0"),
        ("encoder.latent_channels", 0, "at least 1"),
        ("decoder.depth", -1, "at least 1"),
        ("prior.dropout", 1.5, "must be under 1"),
        ("prior.widths", (97,), "not an even multiple"),
        ("data.image_shape", (8, 8, 2), "1 or 3 channels"),
        ("encoder.patch", 3, "not divisible"),
        ("encoder.patch", 2, "transformer is at"),
        ("prior.depths", (1, 1), "same length"),
        ("prior_schedule.logsnr_max", -20.0, "must be above"),
        ("data.image_shape", (8, 8), "of clips"),
        ("ema", (), "decays between 0 and 1"),
        ("batch_size", 20, "not divisible by 8 devices"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(key, value, message):
    changed = plain("digits", "stage1")
    *where, last = key.split(".")
    section = changed
    for part in where:
        section = section[part]
    section[last] = value
    with pytest.raises(ConfigError, match=message) as e:
        assemble.stage1_run(config.parse(changed))
    assert "\n" not in str(e.value)


def test_cudnn_attention_without_a_gpu_is_refused_for_training():
    with pytest.raises(ConfigError, match="'cudnn' needs a GPU, and this is a cpu"):
        assemble.mesh(parsed("photos", "stage1_64"))


def test_a_missing_key_is_named():
    changed = plain("digits", "stage1")
    del changed["optimizer"]["clip"]
    with pytest.raises(ConfigError, match="missing key optimizer.clip"):
        config.parse(changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [("latent_shape", (2, 2, 4)), ("latent_shape", (4, 4, 8))],
)
def test_stage_2_refuses_latents_that_do_not_fit(key, value):
    below = parsed("digits", "stage1")
    with pytest.raises(ConfigError, match=r"latent_shape is .* gives \(4, 4, 4\)"):
        registry.check_stage1(
            config.parse(plain("digits", "stage2") | {key: value}), below
        )


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("guidance", dict(logsnr_low=3.0, logsnr_high=1.0), "must be below"),
        ("base", dict(widths=(64, 128), depths=(1, 2)), "needs 2 blocks"),
        ("base", dict(widths=(64, 128), depths=(0, 2), head_dim=64), None),
        ("base", dict(widths=(64, 128), depths=(0, 0)), "inner one at least 1"),
        ("base", dict(widths=(64, 64, 64), depths=(2, 2, 2), head_dim=64), None),
        ("base", dict(widths=(64,) * 4, depths=(2,) * 4, head_dim=64), "merged 8x"),
    ],
)
def test_stage_2_settings_must_fit_each_other(section, values, message):
    changed = plain("digits", "stage2")
    changed[section] |= values
    if message is None:
        registry.latent_sampler(config.parse(changed))
    else:
        with pytest.raises(ConfigError, match=message):
            registry.latent_sampler(config.parse(changed))


def test_stage_2_refuses_another_least_noise():
    changed = plain("digits", "stage2")
    changed["schedule"]["logsnr_max"] = 6.0
    with pytest.raises(ConfigError, match="schedule.logsnr_max is 6.0"):
        registry.check_stage1(config.parse(changed), parsed("digits", "stage1"))
