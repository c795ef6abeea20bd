"""Evaluations of whole runs with random weights, against the same numbers computed by hand."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.breaks import Break
from tests.lib.commands import ROOT
from tests.lib.fakes import FakeNetworks, inception
from ul import evaluation
from ul.checkpoints import reading
from ul.core import sealed_json
from ul.core.errors import CheckpointError, ConfigError, DataError
from ul.data import datasets
from ul.evaluation import EvaluationContext, Request, generation, runner
from ul.evaluation import reference as references
from ul.metrics import (
    extractors,
    frechet,
    inception_score,
    precision_recall,
    registry,
)
from ul.metrics.features import pixels

SHAPE = (8, 8, 1)
IMAGE_METRICS = ("fid", "sfid", "inception_score", "precision", "recall", "fd_dinov2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A stage 1 and a stage 2 on it, with steps 2 and 4."""
    root = tmp_path_factory.mktemp("runs")
    stage1 = untrained.leave(root / "s1", untrained.parsed("digits", "smoke"))
    config = untrained.parsed(
        "digits", "smoke2", stage1=dict(workdir=stage1, step=None, weights="ema")
    )
    untrained.leave(root / "s2", config)
    return root


def make_context(**options):
    return EvaluationContext(FakeNetworks(SHAPE, **options))


def apply_fake(function, image):
    """The output of a fake network, without mesh or batches."""
    return function(
        FakeNetworks(SHAPE).get("inception").params, extractors.to_rgb(image)
    )


def read(folder, name):
    (file,) = Path(folder, "evals").glob(f"{name}*.json")
    return json.loads(file.read_text())


def test_samples_are_compared_with_the_training_images(runs, tmp_path, monkeypatch):
    """In batches of sixteen; each number equals that of all samples at once."""
    monkeypatch.setattr(datasets, "chunk_rows", lambda shape, batch: 16)
    monkeypatch.setattr("ul.evaluation.generation.chunk_rows", lambda *args: 16)
    request = Request(
        workdir=str(runs / "s2"),
        num_examples=40,
        seed=3,
        npz=str(tmp_path / "out.npz"),
        metrics=(*IMAGE_METRICS, "frechet"),
    )
    result = evaluation.evaluate_generator(request, make_context())
    gen = ul.load_generator(runs / "s2")
    label = np.arange(40) % 10
    image = gen.sample(label, seed=3)
    with np.load(tmp_path / "out.npz") as data:
        np.testing.assert_array_equal(data["arr_0"], image.repeat(3, -1))
        np.testing.assert_array_equal(data["arr_1"], label)
    train = gen.datasets.collect("train", 50_000)["image"]
    samples, reference = apply_fake(inception, image), apply_fake(inception, train)

    def distance(name):
        both = (np.asarray(features[name]) for features in (samples, reference))
        return frechet.distance(*map(frechet.fit_gaussian, both))

    near = dict(rtol=1e-4)
    np.testing.assert_allclose(result["fid"], distance("pool"), **near)
    np.testing.assert_allclose(result["sfid"], distance("spatial"), **near)
    score = inception_score.InceptionScore()
    score.add(np.asarray(samples["probs"]))
    np.testing.assert_allclose(result["inception_score"], score.value(), **near)
    both = precision_recall.precision_recall(samples["pool"], reference["pool"])
    assert (result["precision"], result["recall"]) == both
    assert result["fd_dinov2"] > 0 and result["frechet"] > result["frechet_real"] > 0
    assert result["titles"]["fid"] == "FID@40" and "frechet" not in result["titles"]
    assert result["skipped"] == {} and result["evaluation"] == "generation"
    (stated,) = result["protocol"]["references"]
    assert stated["num_images"] == len(train) == 1437
    assert result["protocol"]["networks"]["inception"]["sha256"] == "d1"


def test_decoded_training_images_are_compared_like_samples(runs, monkeypatch):
    """In batches, with noise of their own, by the features of every metric."""
    monkeypatch.setattr(datasets, "chunk_rows", lambda shape, batch: 16)
    request = Request(
        workdir=str(runs / "s2"), num_examples=40, seed=3, metrics=("fid", "frechet")
    )
    assert not evaluation.evaluate_generator(request, make_context()).keys() & {
        "fid_decoded", "frechet_decoded"
    }  # fmt: skip
    request = dataclasses.replace(request, decoded=True)
    result = evaluation.evaluate_generator(request, make_context())
    gen = ul.load_generator(runs / "s2")
    train = gen.datasets.collect("train", 50_000)["image"]
    chosen = train[datasets.fixed_subset(len(train), 40)]
    images = gen.autoencoder.reconstruct(chosen, seed=3)

    def distance(features):
        both = (np.asarray(features(x)) for x in (images, train))
        return frechet.distance(*map(frechet.fit_gaussian, both))

    near = dict(rtol=1e-4)
    expected = distance(pixels.features)
    np.testing.assert_allclose(result["frechet_decoded"], expected, **near)
    expected = distance(lambda x: apply_fake(inception, x)["pool"])
    np.testing.assert_allclose(result["fid_decoded"], expected, **near)


def allow_small_lpips(monkeypatch):
    """The fake LPIPS takes images of any size."""
    rows = [
        dataclasses.replace(m, min_side=1) if m.name == "lpips" else m
        for m in registry.METRICS
    ]
    monkeypatch.setattr(registry, "METRICS", tuple(rows))


def test_reconstructions_are_compared_with_their_originals(runs, monkeypatch):
    monkeypatch.setattr(datasets, "chunk_rows", lambda shape, batch: 16)
    allow_small_lpips(monkeypatch)
    metrics = ("psnr", "ssim", "lpips", "rfid", "reconstruction_frechet")
    request = Request(workdir=str(runs / "s1"), num_examples=40, metrics=metrics)
    result = evaluation.evaluate_autoencoder(request, make_context())
    ae = ul.load_autoencoder(runs / "s1")
    image = ae.datasets.collect("eval", 40)["image"]
    output = ae.reconstruct(image)
    pair = (apply_fake(inception, x)["pool"] for x in (output, image))
    gaussians = (frechet.fit_gaussian(np.asarray(features)) for features in pair)
    np.testing.assert_allclose(result["rfid"], frechet.distance(*gaussians), rtol=1e-4)
    error = np.abs(image.astype(float) - output) / 255.0
    np.testing.assert_allclose(result["lpips"], error.mean(), rtol=1e-5)
    assert result["titles"] == {"rfid": "rFID@40"}
    assert "flat window 7" in result["protocol"]["ssim"]
    assert "rate_bpp" not in result and "bound_bpd" not in result


@pytest.mark.slow
def test_a_missing_network_skips_its_metrics_by_name(runs, capsys):
    request = Request(workdir=str(runs / "s2"), num_examples=20)
    result = evaluation.evaluate_generator(request, make_context(only=("inception",)))
    assert result["skipped"] == {"fd_dinov2": "dinov2.safetensors is missing"}
    assert "fd_dinov2" not in result and result["fid"] > 0
    assert "skipped: fd_dinov2: dinov2" in capsys.readouterr().out
    assert result["class_accuracy"] <= 1 and result["base_rate_bpp"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "evaluate", "metric", "reason"),
    [
        ("s1", evaluation.evaluate_autoencoder, "lpips", "at least 16 pixels; got 8x8"),
        ("s2", evaluation.evaluate_generator, "fd_dinov2", "dinov2.safetensors is"),
    ],
)
def test_a_requested_metric_must_be_measurable(runs, run, evaluate, metric, reason):
    request = Request(
        workdir=str(runs / run), num_examples=20, metrics=("frechet", "psnr", metric)
    )
    message = f"{metric} cannot be measured: .*{reason}.* remove it from --metrics"
    with pytest.raises(ConfigError, match=message):
        evaluate(request, make_context(only=("inception",)))


def make(out, split="train", metrics=("fid", "precision", "fd_dinov2"), **options):
    datasets, networks = untrained.datasets("digits", "smoke"), FakeNetworks(SHAPE)
    return evaluation.make_reference(
        datasets, str(out), split=split, metrics=metrics, networks=networks, **options
    )


@pytest.mark.slow
def test_a_reference_file_gives_what_the_training_images_give(runs, tmp_path, capsys):
    make(tmp_path / "ref.npz")
    common = dict(workdir=str(runs / "s2"), num_examples=20)
    reference = str(tmp_path / "ref.npz")
    request = Request(**common, reference=reference, seed=7)
    result = evaluation.evaluate_generator(request, make_context())
    own = evaluation.evaluate_generator(Request(**common, seed=7), make_context())
    for name in ("fid", "precision", "recall", "fd_dinov2", "frechet"):
        np.testing.assert_allclose(result[name], own[name], rtol=1e-9)
    assert "has no spatial" in result["skipped"]["sfid"] and "sfid" not in result
    used = {r["file"]: r["metrics"] for r in result["protocol"]["references"]}
    assert used.keys() == {None, str(tmp_path / "ref.npz")}
    assert used[None] == ["frechet"]  # the file has no such features
    request = dataclasses.replace(request, metrics=("sfid",))
    with pytest.raises(ConfigError, match="sfid cannot be measured: .*ref.npz has no"):
        evaluation.evaluate_generator(request, make_context())
    other = make_context(digest="d2")
    with pytest.raises(ConfigError, match="dinov2 sha256 is d1 in the file and d2 now"):
        evaluation.evaluate_generator(request, other)
    make(tmp_path / "ref.npz")
    assert "already complete; nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="its split is train instead of eval"):
        make(tmp_path / "ref.npz", split="eval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(metrics=("inception_score",)), "got 'inception_score'"),
        (dict(metrics=("fvd",)), "fvd needs clips"),
        (dict(split="test"), "must be one of train, eval; got 'test'"),
    ],
)
def test_references_that_cannot_be_made(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "ref.npz", **options)
    with pytest.raises(ConfigError, match="must end in .npz"):
        make(tmp_path / "ref")


def test_a_killed_reference_resumes(tmp_path):
    """kill -9 after the first batch: the file is the same, bit for bit."""
    code = (
        "import os, signal;"
        "import jax; jax.config.update('jax_num_cpu_devices', 8);"
        "from tests.system import test_evaluate;"
        "test_evaluate.make('ref.npz', every_seconds=0.0,"
        " check=lambda count: os.kill(os.getpid(), signal.SIGKILL))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env)
    assert ended.returncode == -9
    assert [p.name for p in tmp_path.iterdir()] == [".ref.npz.begun.npz"]
    counts = []
    make(tmp_path / "ref.npz", check=counts.append)
    assert counts == [1437]  # the first of two batches was not read again
    assert [p.name for p in tmp_path.iterdir()] == ["ref.npz"]
    make(tmp_path / "whole.npz")
    with np.load(tmp_path / "ref.npz") as a, np.load(tmp_path / "whole.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_unfinished_statistics_of_another_protocol_are_refused(tmp_path):
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "ref.npz", every_seconds=0.0, check=stop)
    with pytest.raises(ConfigError, match="begun.npz must have the requested protocol"):
        make(tmp_path / "ref.npz", metrics=("fid",))


@pytest.fixture
def copy(runs, tmp_path):
    without_evals = shutil.ignore_patterns("evals")
    shutil.copytree(runs / "s1", tmp_path / "s1", ignore=without_evals)
    return tmp_path / "s1"


def evaluate_steps(workdir, step, weights=("ema",), **options):
    request = Request(
        workdir=str(workdir), num_examples=8, metrics=("psnr",), **options
    )
    results = runner.run_all(request, step, list(weights), ["1"])
    return [(r["step"], r["weights"]) for r in results]


def delete_while_reading(monkeypatch, workdir, number):
    """Delete a step, as a trainer does, while it is read."""
    original = reading.read_item

    def read(step, item, abstract=None):
        if step.name == str(number) and step.exists():
            (Path(workdir) / "verified" / f"{number}.json").unlink()
            shutil.rmtree(step)
        return original(step, item, abstract)

    monkeypatch.setattr(reading, "read_item", read)


@pytest.mark.slow
def test_all_steps_with_both_weights(copy):
    both = ["ema", "raw"]
    expected = [(2, "ema"), (2, "raw"), (4, "ema"), (4, "raw")]
    assert evaluate_steps(copy, "all", both) == expected
    assert len(list((copy / "evals").glob("*.json"))) == 4
    assert evaluate_steps(copy, "latest") == [(4, "ema")] and evaluate_steps(
        copy, "2"
    ) == [(2, "ema")]


def test_a_step_that_is_deleted_while_it_is_read_is_skipped(copy, monkeypatch, caplog):
    delete_while_reading(monkeypatch, copy, 2)
    assert evaluate_steps(copy, "all") == [(4, "ema")]
    assert "step 2 was deleted before it was read and is skipped" in caplog.text


def test_in_place_of_a_deleted_latest_step_the_next_is_taken(copy, monkeypatch):
    delete_while_reading(monkeypatch, copy, 4)
    assert evaluate_steps(copy, "latest") == [(2, "ema")]


def test_a_damaged_step_is_an_error_and_not_skipped(copy):
    for file in (copy / "checkpoints" / "2" / "state").rglob("d/*"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="checkpoint 2 is damaged"):
        evaluate_steps(copy, "all")


def test_mistakes_are_one_line(runs, copy):
    with pytest.raises(
        ConfigError, match="must be latest, all or a number; got 'newest'"
    ):
        evaluate_steps(copy, "newest")
    with pytest.raises(CheckpointError, match="no verified step 3, only"):
        evaluate_steps(copy, "3")
    with pytest.raises(ConfigError, match="--reference applies to samples"):
        evaluate_steps(copy, "all", reference="x.npz")
    with pytest.raises(ConfigError, match="--decoded applies to samples"):
        evaluate_steps(copy, "all", decoded=True)
    with pytest.raises(ConfigError, match="--npz needs one step"):
        request = Request(workdir=str(runs / "s2"), npz="x.npz")
        list(runner.run_all(request, "latest", ["ema", "raw"], ["1"]))
    with pytest.raises(ConfigError, match="from rate, .*; got 'fid'"):
        request = Request(workdir=str(copy), metrics=("fid",))
        list(runner.run_all(request, "latest", ["ema"], ["1"]))
    with pytest.raises(ConfigError, match="--guidance must be numbers, .*; got 'one'"):
        list(runner.run_all(Request(workdir=str(copy)), "latest", ["ema"], ["one"]))
    with pytest.raises(DataError, match="nothing.npz cannot be read"):
        request = Request(workdir=str(runs / "s2"), reference="nothing.npz")
        evaluation.evaluate_generator(request, make_context())


def test_both_weights_of_a_run_without_an_average(copy):
    record = json.loads((copy / "config.json").read_text())
    record["config"]["ema"] = [0.9]
    record.pop("digest", None)
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"has no ema/0\.9"):
        evaluate_steps(copy, "latest", ["ema", "raw"])
    record["config"]["ema"] = []
    record.pop("digest", None)
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="ema"):
        evaluate_steps(copy, "latest", ["ema", "raw"])


@pytest.mark.slow
def test_the_recorded_command_gives_the_same_numbers_bit_for_bit(command, runs):
    """On one device, from a checkpoint that eight devices wrote."""
    workdir, weights = str(runs / "s2"), str(runs / "no weights")
    out = command(
        "evaluate", f"--workdir={workdir}", "--num_examples=20", "--guidance=1.5",
        "--labels=random", "--seed=5", "--weights=raw",
        env={"UL_WEIGHTS": weights},
    )  # fmt: skip
    assert "labels: uniformly random" in out and "skipped: fid, " in out
    first = read(workdir, "generation-guidance1.5-4-raw-seed5-n20")
    words = shlex.split(first["command"])
    assert f"--weights_dir={weights}" in words
    assert words[:4] == ["python", "-m", "ul", "evaluate"] and "--step=4" in words
    for file in (runs / "s2" / "evals").glob("generation-guidance1.5-4-raw*"):
        file.unlink()
    command("evaluate", *words[4:])
    again = read(workdir, "generation-guidance1.5-4-raw-seed5-n20")
    for record in (first, again):  # the digest covers the date
        assert record.pop("date") and record.pop("digest")
    assert first == again and first["frechet"] > 0


@pytest.mark.slow
def test_references_have_a_command_of_their_own(command, tmp_path):
    common = ("--config=experiments/digits.py:smoke", "--metrics=frechet")
    out = tmp_path / "eval.npz"
    command("evaluate", f"--make_reference={out}", "--split=eval", *common)
    with np.load(out, allow_pickle=False) as data:
        assert data["mu_pixels_8x8"].shape == (64,) and int(data["num_images"]) == 360
    output = command("evaluate", f"--make_reference={tmp_path / 'x.npz'}", code=64)
    assert "--config is required" in output
    assert references.SPLITS == ("train", "eval")


@pytest.mark.parametrize("has_names", [True, False])
def test_a_picture_of_samples_names_the_classes(
    trained, tmp_path, has_names, monkeypatch
):
    workdir = tmp_path / "named"
    shutil.copytree(trained / "smoke2", workdir)
    if has_names:
        file = workdir / "config.json"
        record = json.loads(file.read_text())
        counts = {name: 1 for name in "zero one two three four five six seven".split()}
        record["provenance"]["dataset"]["train"]["classes"] = counts | {"8": 1, "9": 1}
        file.write_text(json.dumps(sealed_json.seal(record)))
    written = []
    monkeypatch.setattr(
        generation.image_grids, "add_text", lambda *_, columns: written.append(columns)
    )
    request = Request(workdir=str(workdir))
    gen = types.SimpleNamespace(
        stage=untrained.stage("digits", "smoke2"), num_classes=10, step=8
    )
    run = types.SimpleNamespace(generator=gen, request=request, count=20)
    generation._picture(run, np.zeros((20, 8, 8, 1), np.uint8))
    assert written[0][:2] == (["zero", "one"] if has_names else ["0", "1"])
    assert len(written[0]) == 10


BREAKS = (
    Break(
        "every batch of samples with the noise of the first",
        "ul/evaluation/generation.py",
        "first=first,",
        "first=0,",
        "test_samples_are_compared_with_the_training_images",
    ),
    Break(
        "a killed reference that begins again",
        "ul/evaluation/reference.py",
        "statistics.restore(dict(data))",
        "dict(data)",
        "test_a_killed_reference_resumes",
    ),
)
