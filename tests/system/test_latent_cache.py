"""Stage 2 on cached latents: the same training as on images, or a refusal."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.lib import untrained
from tests.lib.commands import DIGITS, ROOT, Together, wait_for
from ul.core.errors import ConfigError, DataError
from ul.data import latent_cache, transforms
from ul.data.datasets import Datasets
from ul.inference import api
from ul.runs import encode as encoding
from ul.runs import latent_cache as caches
from ul.runs import session
from ul.stages import registry
from ul.train import loop
from ul.train import state as states


def parsed(file, variant, below, **changes):
    """A stage 2 of twenty steps on the stage 1 in `below`."""
    config = untrained.settings(file, variant)
    config["stage1"]["workdir"], config["steps"] = str(below), 20
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return registry.parse(config)


def digits(below, **changes):
    return parsed("digits", "smoke2", below, **changes)


def encode(made, out, **how):
    return encoding.encode(
        dataclasses.replace(made, **how), str(out), shard_examples=300
    )


@pytest.fixture(scope="module")
def cached(trained, tmp_path_factory):
    """A directory of caches by dtype."""
    out = tmp_path_factory.mktemp("caches")
    for dtype in latent_cache.DTYPES:
        encode(digits(trained / "smoke"), out / dtype, latent_dtype=dtype)
    return out


@pytest.fixture
def copy(cached, tmp_path):
    return shutil.copytree(cached / "float16", tmp_path / "copy")


def losses(run, compiled=None):
    """Return the losses of twenty steps, in nats, and the compiled step.

    Runs that differ only in data share one `compiled` step.
    """
    state = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
    found = []
    with jax.set_mesh(run.mesh):
        for step, batch in enumerate(run.batches(0, run.steps), 1):
            ready = loop.place_batch(run, batch, step, None)
            compiled = compiled or loop.lower_step(run, state, ready).compile()
            state, seen = compiled(state, ready)
            found.append(float(seen["loss_nats"].compute()))
    return np.asarray(found), compiled


def build_run(made, known=None):
    return session.build_run(made, known or {})


def assert_same_losses(made, cached):
    """To 1e-5, of latents of every dtype: the rounding is the config's, not the cache's."""
    compiled, seen = None, {}
    for dtype in latent_cache.DTYPES:
        on_the_fly = dataclasses.replace(made, latent_dtype=dtype)
        seen[dtype], compiled = losses(build_run(on_the_fly)[0], compiled)
        on_cache = dataclasses.replace(on_the_fly, latent_cache=str(cached / dtype))
        found, _ = losses(build_run(on_cache)[0], compiled)
        print(f"{dtype}: off by {np.max(np.abs(found / seen[dtype] - 1.0)):.2g}")
        np.testing.assert_allclose(found, seen[dtype], rtol=1e-5, err_msg=dtype)
    assert np.any(seen["bfloat16"] != seen["float32"])


def test_twenty_steps_on_digits_are_those_on_images(trained, cached):
    assert_same_losses(digits(trained / "smoke"), cached)


@pytest.mark.parametrize("start", [0, 88])
def test_batches_hold_the_latents_of_the_images_in_the_same_order(
    trained, cached, start
):
    """Also in the second epoch: 88 batches of 16 are one epoch, nearly."""
    fly, _ = build_run(digits(trained / "smoke"))
    how = dict(latent_dtype="float32")
    made = digits(trained / "smoke", latent_cache=str(cached / "float32"), **how)
    run, provenance = build_run(made)
    ae = api.load_autoencoder(trained / "smoke")
    pairs = zip(
        fly.batches(start, start + 4), run.batches(start, start + 4), strict=True
    )
    for images, found in pairs:
        for name in ("label", "row", "stratum"):
            np.testing.assert_array_equal(found[name], images[name])
        assert not images["mirrored"].any()
        z = ae.encode(images["image"])
        np.testing.assert_allclose(found["z_clean"], z, atol=1e-6)
    assert provenance["stage1"]["step"] == 8
    assert (
        len(provenance["latent_cache"]["manifest"]) == 16
        and fly.data_digest != run.data_digest
    )


@pytest.mark.slow
def test_a_look_says_the_same_of_cached_latents(trained, cached):
    made = digits(trained / "smoke", latent_dtype="float32")
    on_images, _ = build_run(made)
    on_latents, _ = build_run(
        dataclasses.replace(made, latent_cache=str(cached / "float32"))
    )
    state = states.initialize(
        on_images.init, on_images.tx, on_images.ema_names, on_images.mesh
    )
    (a, pictures), (b, others) = (
        run.validate(state.params, lambda: None) for run in (on_images, on_latents)
    )
    assert a["eval_base_bpp"] == pytest.approx(b["eval_base_bpp"], rel=1e-5)
    np.testing.assert_array_equal(pictures["samples"], others["samples"])


def test_running_encode_again_keeps_what_is_there(trained, copy, caplog):
    caplog.set_level("INFO", logger="ul")
    before = {p.name: p.stat().st_mtime_ns for p in copy.glob("*.array_record")}
    encode(digits(trained / "smoke"), copy)
    assert "7 of 7 shards are complete" in caplog.text
    assert before == {p.name: p.stat().st_mtime_ns for p in copy.glob("*.array_record")}


def test_images_are_read_once_for_both_orientations(trained, tmp_path, monkeypatch):
    """The cache has the latents of all images and then those of their mirror images."""
    made = digits(trained / "smoke", data__flip=True, data__augment="example")
    made = dataclasses.replace(made, latent_dtype="float32")
    num_crops, crop = itertools.count(), transforms.random_crop

    def counted(example, rng, *, shape):
        next(num_crops)
        return crop(example, rng, shape=shape)

    monkeypatch.setattr(transforms, "random_crop", counted)
    encode(made, tmp_path)
    # A few more are read to identify the data.
    assert next(num_crops) < 1.2 * (1437 + 360)
    build_run(dataclasses.replace(made, latent_cache=str(tmp_path)))
    store = latent_cache.open_store(tmp_path)
    manifest, _ = latent_cache.load_manifest(store)
    latents = latent_cache.LatentSource(store, manifest, "train")
    ae = api.load_autoencoder(trained / "smoke")
    fixed = Datasets.from_config(made).fixed("train")
    for i in (0, 299, 1436, 1437, 1736, 2873):
        want = ae.encode(fixed[i]["image"][None])[0]
        np.testing.assert_allclose(latents[i]["z_clean"], want, atol=1e-6)
    # One shard of a pair is written again, alone and with the same bytes.
    path = tmp_path / "train-00006-of-00010.array_record"
    content = path.read_bytes()
    path.unlink()
    encode(made, tmp_path)
    assert path.read_bytes() == content


def shifted(tmp_path, trained, count):
    """Other images in the place of the digits: a level brighter, `count` of them."""
    paths = {}
    for split in ("train", "eval"):
        found = Datasets.from_config(digits(trained / "smoke")).collect(split, 10**6)
        image = np.minimum(found["image"], 254) + np.uint8(split == "train")
        paths[split] = str(tmp_path / f"{split}.npz")
        n = count if split == "train" else None
        np.savez(paths[split], image=image[:n], label=found["label"][:n])
    return dict(kind="arrays", path=paths["train"], eval_path=paths["eval"])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (None, "train fingerprint: stored"),
        (1000, "train count: stored 1437, requested 1000"),
    ],
)
def test_a_cache_of_other_images_is_refused(trained, copy, tmp_path, count, message):
    source = shifted(tmp_path, trained, count)
    made = digits(trained / "smoke", latent_cache=str(copy), data__source=source)
    with pytest.raises(ConfigError, match=message) as e:
        build_run(made)
    assert "data.source" in str(e.value) and "\n" not in str(e.value)


def test_a_cache_of_another_encoder_is_refused(trained, copy):
    """Raw weights are another encoder than their average."""
    made = digits(trained / "smoke", latent_cache=str(copy), stage1__weights="raw")
    with pytest.raises(
        ConfigError, match="encoder: stored .*ema.*, requested .*raw"
    ) as e:
        build_run(made)
    assert e.value.code == 64 and "\n" not in str(e.value)


def test_damage_is_found_when_a_run_begins_and_sizes_when_it_goes_on(trained, copy):
    made = digits(trained / "smoke", latent_cache=str(copy))
    _, provenance = build_run(made)
    path = copy / "train-00002-of-00005.array_record"
    content = path.read_bytes()
    at = content.index((650).to_bytes(8, "little")) + 20  # in the latents of record 650
    path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    with pytest.raises(DataError, match="00002-of-00005.* is damaged") as e:
        build_run(made)
    assert e.value.code == 65
    run, _ = build_run(
        made, provenance
    )  # begun before the damage: on, until it is read
    with pytest.raises(DataError, match="00002-of-00005.*record 650 cannot be read"):
        list(run.batches(0, 90))
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="bytes, not"):
        build_run(made, provenance)


def identity(config, codec):
    return caches.cache_identity(config, Datasets.from_config(config), codec, {})


def test_random_crops_cannot_be_cached(tmp_path):
    """And what to set is said."""
    codec = registry.build(stage1_config("photos")).codec
    for changes in ({}, {"data__flip": False}):
        made = parsed("photos", "smoke2", tmp_path, **changes)
        with pytest.raises(ConfigError, match="--config.data.augment=example"):
            identity(made, codec)
    made = parsed("photos", "stage2_fixed", tmp_path)
    found = identity(made, codec)["splits"]
    assert (found["train"]["count"], found["train"]["orientations"]) == (65536, 2)
    assert (found["eval"]["count"], found["eval"]["orientations"]) == (8192, 1)


def test_a_cache_of_another_rounding_is_refused(trained, copy):
    made = digits(trained / "smoke", latent_cache=str(copy), latent_dtype="bfloat16")
    with pytest.raises(ConfigError, match="dtype: stored float16, requested bfloat16"):
        build_run(made)


def test_draws_of_an_encoder_with_a_variance_cannot_be_cached(tmp_path):
    codec = registry.build(stage1_config("digits")).codec
    codec = dataclasses.replace(codec, is_deterministic=False)
    with pytest.raises(ConfigError, match="needs a deterministic encoder"):
        identity(digits(tmp_path), codec)


def stage1_config(file):
    return untrained.parsed(file, "smoke")


def test_only_a_stage_2_has_latents_below_it(tmp_path):
    with pytest.raises(
        ConfigError, match="needs a config of stage 'base'.* got 'joint'"
    ):
        encode(stage1_config("digits"), tmp_path / "out")


# ------------------------------------------------------------------ the commands


def arguments(trained, out, *changes, per_shard=100):
    below = f"--config.stage1.workdir={trained / 'smoke'}"
    shard = f"--shard_examples={per_shard}"
    head = ("encode", f"--config={DIGITS}:smoke2", below, f"--out={out}", shard)
    return (*head, *changes)


def files(out):
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name != ".lock"}


@pytest.mark.processes
def test_killed_and_run_again_and_by_two_processes_the_bytes_are_the_same(
    trained, command, tmp_path
):
    whole, killed, two = (tmp_path / name for name in ("whole", "killed", "two"))
    out = command(*arguments(trained, whole))
    assert "train: 1437 latents of [4, 4, 4], float16" in out
    process = command.start(*arguments(trained, killed))
    wait_for(killed / "train-00003-of-00015.json", "sha256", process)
    process.kill()
    process.communicate()
    assert not (killed / "manifest.json").exists()
    refused = (*train(trained, tmp_path / "w"), f"--config.latent_cache={killed}")
    assert "is incomplete: manifest.json is missing" in command(*refused, code=65)
    assert " 0 of 19 shards are complete" not in command(*arguments(trained, killed))
    assert files(killed) == files(whole)
    logs = Together(command, 2, tmp_path / "log", *arguments(trained, two)).wait(0, 0)
    assert "1 of 2 parts" in logs[0] and files(two) == files(whole)


def train(trained, workdir):
    below = f"--config.stage1.workdir={trained / 'smoke'}"
    return ("train", f"--config={DIGITS}:smoke2", below, f"--workdir={workdir}")


@pytest.mark.processes
def test_a_run_on_a_cache_resumes_samples_and_is_evaluated(trained, command, tmp_path):
    out, workdir = tmp_path / "latents", tmp_path / "w"
    command(*arguments(trained, out))
    on_cache = (*train(trained, workdir), f"--config.latent_cache={out}")
    command(*on_cache, "--config.steps=4")
    assert "resumed at step 4" in command(*on_cache)
    provenance = json.loads((workdir / "config.json").read_text())["provenance"]
    assert provenance["latent_cache"]["path"] == str(out)
    # On images it would be another run, if only by rounding.
    other = command(*train(trained, workdir), code=64)
    assert "the training examples" in other
    moved = shutil.move(out, tmp_path / "moved")
    assert "No latent cache found in" in command(*on_cache, code=65)
    command(*train(trained, workdir), f"--config.latent_cache={moved}")
    shutil.rmtree(moved)
    picture = tmp_path / "samples.png"
    command("sample", f"--workdir={workdir}", "--num=4", "--grid", f"--out={picture}")
    assert picture.stat().st_size > 100
    command("evaluate", f"--workdir={workdir}", "--num_examples=16")
    (record,) = (workdir / "evals").glob("*.json")
    assert json.loads(record.read_text())["step"] == 8


@pytest.mark.slow
def test_twenty_steps_on_photographs_are_those_on_images(command, tmp_path):
    """32x32 crops of photographs, both ways, on a stage 1 of four steps."""
    below = tmp_path / "smoke"
    command("train", "--config=experiments/photos.py:smoke", f"--workdir={below}")
    source = dict(kind="photos", reduce=2, crops=40)
    made = parsed(
        "photos", "smoke2", below, data__source=source, data__augment="example"
    )
    for dtype in latent_cache.DTYPES:
        encode(made, tmp_path / dtype, latent_dtype=dtype)
    assert_same_losses(made, tmp_path)


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bench.latent_cache",
            "--rounds=1",
            "--steps=2",
        ],
        cwd=ROOT,
        check=True,
    )
