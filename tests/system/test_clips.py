"""Clips [T, H, W, C] through networks, stages, caches and evaluations."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.breaks import Break
from tests.lib.commands import Commands
from ul import evaluation
from ul.core import arrays
from ul.core.errors import ConfigError, DataError
from ul.data.datasets import Datasets
from ul.evaluation import Request
from ul.evaluation.context import EvaluationContext
from ul.metrics.extractors import FeatureNetworks
from ul.models.attention import Attention
from ul.models.layers import ResBlock, TemporalConv
from ul.runs import encode, latent_cache
from ul.stages import registry

F32 = jnp.float32


def parsed(variant, **changes):
    return untrained.parsed("moving_digits", variant, **changes)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, F32)


@pytest.mark.parametrize("block", [2, (1, 2, 2), (3, 1, 2)])
def test_blocks_of_clips_become_channels_and_come_back(block):
    x = normal(0, 2, 6, 4, 8, 3)
    t, h, w = arrays.block_shape(block, 3)
    y = arrays.space_to_depth(x, block)
    np.testing.assert_array_equal(arrays.depth_to_space(y, block), x)
    cell = x[1, t : 2 * t, :h, w : 2 * w]
    np.testing.assert_array_equal(y[1, 1, 0, 1], cell.reshape(-1))


def test_a_clip_of_one_frame_is_cut_into_blocks_as_an_image():
    x = normal(0, 2, 4, 6, 3)
    np.testing.assert_array_equal(
        arrays.space_to_depth(x[:, None], (1, 2, 2))[:, 0], arrays.space_to_depth(x, 2)
    )


def test_in_time_is_a_convolution_of_three_frames():
    x, module = normal(0, 2, 5, 3, 2, 4), TemporalConv(6, F32)
    params = module.init(jax.random.key(1), x)["params"]
    kernel = params["Dense_0"]["kernel"].reshape(3, 1, 1, 4, 6)
    want = nn.Conv(6, (3, 1, 1)).apply(
        {"params": {"kernel": kernel, "bias": params["Dense_0"]["bias"]}}, x
    )
    np.testing.assert_allclose(module.apply({"params": params}, x), want, atol=1e-5)


def test_a_still_clips_middle_frame_is_each_frame_by_itself_without_time():
    """With the kernel over time that of the middle frame alone, frames do not mix."""
    x, block = normal(0, 2, 3, 4, 4, 8), ResBlock(8, 0.0, F32)
    image = ResBlock(8, 0.0, F32)
    params = block.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    middle = jnp.zeros((3, 8, 8)).at[1].set(jnp.eye(8)).reshape(24, 8)
    time = {"Dense_0": {"kernel": middle, "bias": jnp.zeros(8)}}
    clip = block.apply({"params": params | {"TemporalConv_0": time}}, x)
    of_image = {k: v for k, v in params.items() if k != "TemporalConv_0"}
    for t in range(3):
        each = image.apply({"params": of_image}, x[:, t])
        np.testing.assert_allclose(clip[:, t], each, atol=1e-5)


def test_factorized_attention_is_within_frames_and_along_time():
    """Half of the heads each, against plain attention over those tokens alone."""
    frames, places, dim = 3, 4, 8
    x = normal(0, 2, frames * places, 4 * dim)
    module = Attention(dim, "xla", F32, frames)
    params = module.init(jax.random.key(1), x)["params"]
    # The output layer passes the heads on as they are.
    params |= {"out": {"kernel": jnp.eye(4 * dim), "bias": jnp.zeros(4 * dim)}}
    got = module.apply({"params": params}, x).reshape(2, frames, places, 4, dim)
    whole = x.reshape(2, frames, places, 4 * dim)
    joint = Attention(dim, "xla", F32)
    for t in range(frames):
        alone = joint.apply({"params": params}, whole[:, t]).reshape(2, places, 4, dim)
        np.testing.assert_allclose(got[:, t, :, :2], alone[:, :, :2], atol=1e-5)
    for place in range(places):
        alone = joint.apply({"params": params}, whole[:, :, place])
        alone = alone.reshape(2, frames, 4, dim)
        np.testing.assert_allclose(got[:, :, place, 2:], alone[:, :, 2:], atol=1e-5)


def test_settings_that_fit_no_clip_are_refused():
    own = parsed("stage1")

    def patched(patch):
        return dataclasses.replace(own, encoder=own.encoder | {"patch": patch})

    narrow = dataclasses.replace(own, prior=own.prior | {"widths": (96,)})
    for message, changed in (
        ("even number of heads", narrow),
        ("encoder.patch must have one size for each of the 3 sides", patched((2, 2))),
        (
            "divisible by the encoder's downsampling 6x4x4; got 16x16x16",
            patched((3, 2, 2)),
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            registry.build(changed)
    of_images = untrained.parsed("digits", "stage1")
    factorized = of_images.decoder | {"factorized": True, "width": 64}
    with pytest.raises(
        ConfigError, match="decoder.factorized needs clips .* images of 8x8"
    ):
        registry.build(dataclasses.replace(of_images, decoder=factorized))
    text = untrained.parsed("captions", "stage2")
    wide = text.base | {"factorized": True, "widths": (128,)}
    with pytest.raises(ConfigError, match="base.factorized needs clips .* got text"):
        registry.build(dataclasses.replace(text, base=wide))
    with pytest.raises(ConfigError, match="fewer than the frames of clips; got 16"):
        registry.build(parsed("stage2", context_frames=16))
    with pytest.raises(ConfigError, match="context_frames must be 0 or more; got -1"):
        parsed("stage2", context_frames=-1)
    with pytest.raises(ConfigError, match="context_frames must be 0 for images"):
        images = dataclasses.replace(
            untrained.parsed("digits", "stage2"), context_frames=1
        )
        registry.build(images)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    untrained.leave(root / "s1", parsed("smoke"), steps=(2,))
    below = dict(workdir=str(root / "s1"), step=None, weights="ema")
    untrained.leave(root / "s2", parsed("smoke2", stage1=below), steps=(2,))
    return root


def held_out_clips(count=3):
    examples = Datasets.from_config(parsed("smoke")).eval
    return np.stack([examples[i]["image"] for i in range(count)])


def test_nothing_later_than_the_given_frames_is_seen(made):
    ae, clips = ul.load_autoencoder(made / "s1"), held_out_clips()
    changed = clips.copy()
    changed[:, 5:] = 255 - changed[:, 5:]

    def given(image):
        return np.asarray(ae.codec.encode_context(ae.params, image, 5))

    want = given(clips)
    np.testing.assert_array_equal(given(changed), want)
    # Another program, which may round differently.
    np.testing.assert_allclose(ae.encode_context(clips[:, :5]), want, atol=1e-6)
    changed[:, 4] = 255 - changed[:, 4]
    assert np.abs(given(changed) - want).max() > 1e-3


def test_a_clip_goes_on_from_the_frames_that_are_given(made):
    gen, given = ul.load_generator(made / "s2"), held_out_clips()[:, :5]
    clip = gen.sample({"context": given}, guidance=1.5, seed=1)
    assert clip.shape == (3, 16, 16, 16, 1)
    np.testing.assert_array_equal(clip[:, :5], given)
    alone = gen.sample({"context": given[1:2]}, guidance=1.5, seed=1, first=1)
    np.testing.assert_array_equal(alone, clip[1:2])
    other = gen.sample({"context": given[::-1]}, guidance=1.5, seed=1)
    assert (other[1:2] == clip[1:2]).all() and (other[0, 5:] != clip[0, 5:]).any()
    with pytest.raises(
        DataError, match=r"context frames must be .* got uint8\[3, 4, 16, 16, 1\]"
    ):
        gen.sample({"context": given[:, :4]})
    with pytest.raises(
        DataError, match="conditions must include context; 'context' is missing"
    ):
        gen.sample([1, 2])


def test_an_evaluation_says_what_moved_where(made):
    request = Request(workdir=str(made / "s2"), num_examples=6)
    record = evaluation.evaluate_generator(
        request, EvaluationContext(FeatureNetworks(None))
    )
    assert record["position_error_px_real"] == 0.0 < record["position_error_px"]
    standing = record["position_error_standing_px"]
    clips = Datasets.from_config(parsed("smoke")).eval
    assert 0.0 <= record["identity_kept"] <= 1.0 and standing > 1.0
    assert record["protocol"]["context_frames"].startswith("5 real ones")
    assert record["protocol"]["labels"].startswith(f"of the {len(clips)} held-out")
    assert len(list((made / "s2" / "evals").glob("*-clips.gif"))) == 1
    assert record["base_rate_bpp"] > 0 and "frechet" not in record


@pytest.mark.slow
def test_reconstructions_of_clips_are_measured_and_drawn(made):
    request = Request(workdir=str(made / "s1"), num_examples=4)
    record = evaluation.evaluate_autoencoder(
        request, EvaluationContext(FeatureNetworks(None))
    )
    total = sum(record["bits_by_channel"]["bpp"])
    np.testing.assert_allclose(total, record["prior_bpp"], rtol=0.2)
    assert record["psnr_db"] > 0 and -1 < record["ssim"] < 1 and record["bound_bpd"] > 0
    names = {p.name.split("n4")[-1] for p in (made / "s1" / "evals").iterdir()}
    assert names == {".json", ".png", "-bits.png", "-clips.gif"}


def test_a_cache_holds_what_is_given_too(made, tmp_path):
    below = dict(workdir=str(made / "s1"), step=None, weights="ema")
    source = dict(kind="moving_digits", num_examples=12)
    data = dataclasses.asdict(parsed("smoke2").data) | {"source": source}
    c = parsed("smoke2", stage1=below, data=data, latent_cache=str(tmp_path / "z"))
    encode.encode(c, c.latent_cache, shard_examples=8)
    ae, identity = encode._encoder(c, Datasets.from_config(c))
    datasets = Datasets.from_config(c)
    cache = latent_cache.open_cache(c, datasets, identity, {})
    found, clips = cache.held_out[3], datasets.fixed("eval")[3]["image"][None]
    for name, want in (
        ("z_clean", ae.encode(clips)),
        ("context", ae.encode_context(clips[:, :5])),
    ):
        np.testing.assert_array_equal(found[name], want[0].astype(np.float16))
    other = dataclasses.replace(c, context_frames=4)
    with pytest.raises(ConfigError, match="context_frames: stored 5, requested 4"):
        needed = latent_cache.cache_identity(
            other, datasets, ae.codec, identity["encoder"]
        )
        latent_cache.open_cache(other, datasets, needed, {})


@pytest.mark.slow
def test_both_stages_of_clips_train_resume_and_are_evaluated(tmp_path):
    command = Commands()
    config_of = "--config=experiments/moving_digits.py"
    one, two = tmp_path / "m1", tmp_path / "m2"
    command("train", f"{config_of}:smoke", f"--workdir={one}", "--config.steps=4")
    command(
        "train", f"{config_of}:smoke", f"--workdir={one}", "--allow_changes"
    )  # from 4 to 8
    below = f"--config.stage1.workdir={one}"
    command("train", f"{config_of}:smoke2", f"--workdir={two}", below)
    command("evaluate", f"--workdir={two}", "--num_examples=8")
    out = command("sample", f"--workdir={two}", "--num=2", f"--out={tmp_path / 'gifs'}")
    assert (
        "wrote 2 samples of step" in out
        and len(list((tmp_path / "gifs").glob("*.gif"))) == 2
    )
    strips = tmp_path / "strips.png"
    command("sample", f"--workdir={two}", "--num=2", "--grid", f"--out={strips}")
    assert strips.exists()
    out = command("sample", f"--workdir={two}", "--labels=3", "--out=x", code=64)
    assert "--labels cannot be used with this model" in out
    (record,) = (two / "evals").glob("generation*.json")
    assert json.loads(record.read_text())["position_error_px"] > 0


BREAKS = (
    Break(
        "factorized attention whose temporal heads attend to positions",
        "ul/models/attention.py",
        "(by_frame).swapaxes(1, 2)",
        "(by_frame)",
        "test_factorized_attention_is_within_frames_and_along_time",
    ),
    Break(
        "frames after the context frames are encoded",
        "ul/stages/codec.py",
        "still = jnp.repeat(image[:, frames - 1 : frames], num_repeats, axis=1)",
        "still = image[:, frames : frames + num_repeats]",
        "test_nothing_later_than_the_given_frames_is_seen",
    ),
)
