"""Every experiment parses, builds, and traces one step of its smoke."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage

from experiments import ablations
from tests.lib.breaks import Break
from ul.config import RunConfig, TrainConfig
from ul.core.errors import ConfigError
from ul.data.datasets import Datasets
from ul.models import registry as models
from ul.models.vit import ViT
from ul.planning.pods import jaxpr_flops, model_flops
from ul.runs import assemble, session
from ul.runs.train_spec import TrainSpec
from ul.stages import kinds, registry
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


def settings(name, variant):
    """An experiment's config as nested dicts."""
    config = importlib.import_module(f"experiments.{name}").get_config(variant)
    if name == "folder":
        config.data.source.path = FOLDER
    return registry.to_dict(config)


def parsed(name, variant):
    return registry.parse(settings(name, variant))


def changed(name, variant, key, value):
    """An experiment's config as nested dicts with one key changed."""
    config = settings(name, variant)
    *sections, last = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    section[last] = value
    return config


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_parses_locks_and_survives_json(name, variant):
    assert importlib.import_module(f"experiments.{name}").get_config(variant).is_locked
    resolved = settings(name, variant)
    restored = registry.to_dict(json.loads(json.dumps(resolved)))
    assert registry.parse(restored) == registry.parse(resolved)


# The same step on other data, or the twin of a shrunk one.
SAME = (",tfds", "stage2_medium,smoke", "stage2_100,smoke", "stage2_300,smoke")
SAME += tuple(f"{kind}_base" for kind in ablations.KINDS if kind != "ul")
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
    ("folder", "stage1"),
    ("folder", "stage2"),
    ("folder", "stage1_64"),
    ("folder", "stage2_64"),
    ("photos", "stage1_16"),
    ("photos", "stage2_16"),
    ("photos", "stage2_fixed"),
}


WHOLE_UPDATE = {("kinetics600", "stage1,smoke")}
# The FLOPs of their step are counted in the trace and compared with the closed form.
COUNTED = {
    ("digits", "stage1"): "update",
    ("digits", "stage2"): "update",
    ("digits", "distill"): "gradient",
    ("kinetics600", "stage2"): "update",
    ("text_to_image", "stage2_970"): "gradient",
    ("photos", "stage2"): "gradient",
    ("photos", "stage1_64"): "gradient",
    ("ablations", "detached_prior"): "gradient",
    ("ablations", "kl_autoencoder"): "gradient",
    ("single_stage", "random_noise"): "gradient",
    ("single_stage", "pixels"): "gradient",
    ("imagenet512", "stage1"): "gradient",
    ("imagenet512", "stage2"): "update",
    ("captions", "stage2"): "gradient",
    ("moving_digits", "stage1"): "gradient",
    ("kinetics600", "stage1"): "gradient",
}


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def update_of(run, accumulate):
    """The train step, which must return a state of the same shapes, and its arguments."""
    train_step = step.make_train_step(
        run.objective, run.tx, run.lr, root=run.root, accumulate=accumulate
    )

    def update(before, batch):
        after, metrics = train_step(before, batch)
        assert shapes(after) == shapes(before)
        assert "loss_nats" in metrics
        return after, metrics

    return update, state.abstract_state(run.init, run.tx, run.ema_names, run.mesh)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        both
        for both in VARIANTS
        if not both[1].endswith(SAME)
        and both not in TRACED
        and (both in WHOLE_UPDATE or both not in COUNTED)
    ],
)
def test_one_step_traces(name, variant):
    """Shapes only: no experiment is too large for this.

    Of most, the loss alone; a whole update, with its gradient, takes twice as long.
    """
    config = kinds.with_attention(parsed(name, variant), "xla")
    stage = registry.build(config)
    if stage.objective is None:
        jax.eval_shape(lambda: stage.init(jax.random.key(0)))
        return
    run = assemble.make_update(config, stage, assemble.make_mesh(config))
    batch = assemble.abstract_batch(stage, config.batch_size, run.mesh)
    if (name, variant) in WHOLE_UPDATE:
        update, before = update_of(run, config.accumulate)
        jax.eval_shape(update, before, batch)
        return
    params = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    key = jax.random.key(0)
    terms = jax.eval_shape(lambda p, b: stage.objective(p, b, key, 0), params, batch)
    assert terms.loss.shape == (config.batch_size,)


@pytest.mark.parametrize(
    ("name", "variant", "traced"), [(*both, traced) for both, traced in COUNTED.items()]
)
def test_closed_forms_equal_the_traced_counts(name, variant, traced):
    """They are equal, not just close, because layers on data count twice and not thrice."""
    spec = TrainSpec(parsed(name, variant))
    per_example = model_flops.closed_form_flops(spec.stage).training
    if traced == "gradient":
        counted = model_flops.model_flops(spec)
    else:
        plain = spec.with_remat("none")
        run = plain.make_update(plain.make_mesh())
        update, before = update_of(run, plain.accumulate)
        batch = plain.abstract_batch(run.mesh)
        counted = jaxpr_flops.count_flops(update, before, batch)
    assert counted == per_example * spec.batch_size


def resized(name, variant, height, width):
    """The config with other sides and, for a stage 2, the latents that follow."""
    config = settings(name, variant)
    old = config["data"]["image_shape"]
    config["data"]["image_shape"] = (height, width, old[2])
    if "latent_shape" in config:
        rows, columns, channels = config["latent_shape"]
        cell = old[0] // rows
        assert old[1] // columns == cell
        config["latent_shape"] = (height // cell, width // cell, channels)
    return kinds.with_attention(registry.parse(config), "xla")


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
    """Training and evaluation, by shapes."""
    config = resized(name, variant, height, width)
    stage = registry.build(config)
    row, key = jnp.arange(2), jax.random.key(0)
    params = jax.eval_shape(lambda: stage.init(key))
    if isinstance(config, TrainConfig):
        mesh = assemble.make_mesh(config)
        batch = assemble.abstract_batch(stage, config.batch_size, mesh)
        jax.eval_shape(lambda p, b: stage.objective(p, b, key, 0), params, batch)
    if stage.is_autoencoder:
        image = jax.ShapeDtypeStruct((2, *stage.image_shape), np.uint8)
        reconstructions = jax.eval_shape(
            lambda p, image: stage.codec.reconstruct(p, image, row, key), params, image
        )
        assert reconstructions.shape == (2, height, width, stage.image_shape[2])
        rows, columns, _ = stage.latent_shape
        assert rows * width == columns * height
    else:
        fields = stage.conditions.fields
        condition = {k: jnp.zeros((2, *f.shape), f.dtype) for k, f in fields.items()}
        z_0 = jax.eval_shape(
            lambda p: stage.sampler.sample(p, condition, row, key, 2.0), params
        )
        assert z_0.shape == (2, *stage.latent_shape)


def test_stages_of_other_sides_fit_each_other_and_their_data():
    stage1, stage2 = (resized("photos", s, 32, 48) for s in ("stage1", "stage2"))
    built = registry.build(stage2)
    registry.check_stage1(built, registry.build(stage1), "w")
    datasets = Datasets.from_config(stage2)
    for examples in (datasets.train, datasets.eval):
        assert examples[0]["image"].shape == (32, 48, 3)
    other = registry.build(resized("photos", "stage1", 48, 32))
    with pytest.raises(ConfigError, match=r"latent_shape must be .* got \(8, 12, 8\)"):
        registry.check_stage1(built, other, "w")


def test_an_unknown_variant_names_those_there_are():
    with pytest.raises(ValueError, match="stage1, stage2"):
        importlib.import_module("experiments.digits").get_config("stage3")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "encoder.chanels",
            (8,),
            "Unknown key encoder.chanels. Did you mean encoder.ch",
        ),
        ("losss", {}, "Unknown key losss. Did you mean loss"),
        (
            "loss.weighting.factor",
            0.9,
            "loss.weighting.factor must be above 1.* got 0.9",
        ),
        ("optimizer.lr", float("nan"), "optimizer.lr must be a finite number; got nan"),
        ("steps", -5, "steps must be at least 1; got -5"),
        ("steps", 2.5, "steps must be of type int; got 2.5"),
        (
            "accumulate",
            3,
            "divisible by accumulate; got batch_size 64 and accumulate 3",
        ),
        ("dtype", "float16", "float32 or bfloat16"),
        ("stage", "three", "stage must be one of .*; got 'three'"),
        ("decoder_schedule.kind", "sine", "must be one of .*; got 'sine'"),
        ("data.source.kind", "imagenet", "data.source.kind must be one of .*; got"),
        ("encoder.kind", "vgg", "encoder.kind must be one of .*; got 'vgg'"),
        ("loss.weighting.kind", "none", "loss.weighting.kind must be one of .*; got"),
        ("sampling.kind", "euler", "sampling.kind must be one of .*; got 'euler'"),
        (
            "prior.head_dim",
            7,
            "must be even and a multiple of head_dim; got width 96 and head_dim 7",
        ),
        (
            "prior.attention",
            "flash",
            "prior.attention must be one of auto, xla, cudnn, splash; got",
        ),
        ("encoder.remat", "some", "encoder.remat must be one of .*; got 'some'"),
        ("prior.remat", True, "prior.remat must be of type str; got True"),
        ("encoder.blocks", (1,), "must have the same length"),
        ("encoder.blocks", (1, 0), "encoder.blocks must be at least 1"),
        ("encoder.patch", 0, "encoder.patch must be at least 1; got 0"),
        ("encoder.latent_channels", 0, "at least 1"),
        ("decoder.depth", -1, "at least 1"),
        ("log.peak_tflops", 0.0, "log.peak_tflops must be positive .*got 0.0"),
        ("prior.dropout", 1.5, "prior.dropout must be below 1; got 1.5"),
        (
            "prior.widths",
            (97,),
            "must be even and a multiple of head_dim; got width 97",
        ),
        ("data.image_shape", (8, 8, 2), "1 or 3 channels"),
        ("encoder.patch", 3, "divisible by the encoder's downsampling 6; got 8x8"),
        ("encoder.patch", 2, "must have the same grid; got 2x2 and 4x4"),
        ("prior.depths", (1, 1), "same length"),
        ("prior_schedule.logsnr_max", -20.0, "must be above"),
        ("data.image_shape", (8, 8), "for clips"),
        ("data.text", (16, 64), r"data.text must be \(0, 0\) for stage 'joint'"),
        ("ema", (), "decays between 0 and 1"),
        ("batch_size", 20, "divisible by devices x accumulate = 8 x 1 = 8; got 20"),
    ],
)
def test_a_config_that_cannot_work_is_refused_in_one_line(key, value, message):
    with pytest.raises(ConfigError, match=message) as e:
        session.build_run(registry.parse(changed("digits", "stage1", key, value)), {})
    assert "\n" not in str(e.value)


def test_cudnn_attention_without_a_gpu_is_refused_for_training():
    with pytest.raises(
        ConfigError,
        match="must run on a gpu; the mesh consists of cpu.*prior.attention=auto",
    ):
        assemble.make_mesh(kinds.with_attention(parsed("photos", "stage1_64"), "cudnn"))


def test_a_missing_key_is_named():
    config = settings("digits", "stage1")
    del config["optimizer"]["clip"]
    with pytest.raises(ConfigError, match="optimizer.clip is required"):
        registry.parse(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "latent_shape",
            (2, 2, 4),
            r"latent_shape must be \(4, 4, 4\).* got \(2, 2, 4\)",
        ),
        (
            "latent_shape",
            (4, 4, 8),
            r"latent_shape must be \(4, 4, 4\).* got \(4, 4, 8\)",
        ),
        ("schedule.logsnr_max", 6.0, "schedule.logsnr_max must be 5.0, .* got 6.0"),
    ],
)
def test_stage_2_refuses_latents_that_do_not_fit(key, value, message):
    stage1 = registry.build(parsed("digits", "stage1"))
    stage2 = registry.build(registry.parse(changed("digits", "stage2", key, value)))
    with pytest.raises(ConfigError, match=message):
        registry.check_stage1(stage2, stage1, "w")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("guidance", dict(logsnr_low=3.0, logsnr_high=1.0), "must be below"),
        ("base", dict(widths=(64, 128), depths=(1, 2)), "at least 2 .* got \\(1, 2\\)"),
        ("base", dict(widths=(64, 128), depths=(0, 2), head_dim=64), None),
        (
            "base",
            dict(widths=(64, 128), depths=(0, 0)),
            "at least 1 for the inner level",
        ),
        ("base", dict(widths=(64, 64, 64), depths=(2, 2, 2), head_dim=64), None),
        (
            "base",
            dict(widths=(64,) * 4, depths=(2,) * 4, head_dim=64),
            "divisible by 8",
        ),
    ],
)
def test_stage_2_settings_must_fit_each_other(section, values, message):
    config = settings("digits", "stage2")
    config[section] |= values
    if message is None:
        registry.build(registry.parse(config))
    else:
        with pytest.raises(ConfigError, match=message):
            registry.build(registry.parse(config))


def test_a_command_says_which_stages_it_takes():
    with pytest.raises(
        ConfigError, match="stage must be one of .* here; got 'external'"
    ):
        registry.parse(settings("external", "tiny"), TrainConfig)
    assert issubclass(registry.STAGES["external"].config, RunConfig)


class ViTWithoutText(ViT):
    """A base network that takes labels alone."""

    def __call__(self, z_t, logsnr, label=None):
        return z_t


def test_a_base_network_must_take_the_conditions_of_the_data(monkeypatch):
    monkeypatch.setitem(models.LATENT_DENOISERS, "labels_only", ViTWithoutText)
    config = settings("captions", "smoke2")
    config["base"]["kind"] = "labels_only"
    with pytest.raises(ConfigError, match="does not take text, text_length"):
        registry.build(registry.parse(config))


BREAKS = (
    Break(
        "a gradient with respect to the data is counted",
        "ul/planning/pods/closed_form.py",
        "3 * self.forward - self.data_layers",
        "3 * self.forward",
        "test_closed_forms_equal_the_traced_counts",
    ),
    Break(
        "FLOPs of attention without the text",
        "ul/planning/pods/closed_form.py",
        "4 * tokens * (tokens + text_tokens) * width",
        "4 * tokens * tokens * width",
        "test_closed_forms_equal_the_traced_counts",
    ),
)
