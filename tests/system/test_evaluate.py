"""Evaluations of whole runs, of random weights: against the figures made by hand."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.commands import ROOT
from tests.lib.fakes import FakeNetworks, inception
from ul import evaluation
from ul.checkpoints import store
from ul.core.errors import CheckpointError, ConfigError, DataError
from ul.data import datasets
from ul.evaluation import Request, Shared, reconstruction, runner
from ul.evaluation import reference as references
from ul.metrics import extractors, frechet, inception_score, precision_recall

SHAPE = (8, 8, 1)
IMAGE_METRICS = ("fid", "sfid", "inception_score", "precision", "recall", "fd_dinov2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A stage 1 and a stage 2 on it, with steps 2 and 4."""
    root = tmp_path_factory.mktemp("runs")
    below = untrained.leave(root / "s1", untrained.parsed("digits", "smoke"))
    parsed = untrained.parsed(
        "digits", "smoke2", stage1=dict(workdir=below, step=None, weights="ema")
    )
    untrained.leave(root / "s2", parsed)
    return root


def shared(**how):
    return Shared(FakeNetworks(SHAPE, **how))


def of(fn, image):
    """What a fake network sees, without mesh or parts."""
    return fn(FakeNetworks(SHAPE).get("inception").params, extractors.coloured(image))


def read(folder, name):
    (file,) = Path(folder, "evals").glob(f"{name}*.json")
    return json.loads(file.read_text())


def test_samples_are_compared_with_the_training_images(made, tmp_path, monkeypatch):
    """In parts of sixteen; each figure equals that of everything at once."""
    monkeypatch.setattr(datasets, "rows_at_once", lambda shape, batch: 16)
    request = Request(
        workdir=str(made / "s2"),
        num_examples=40,
        seed=3,
        npz=str(tmp_path / "out.npz"),
        metrics=(*IMAGE_METRICS, "frechet"),
    )
    record = evaluation.generator(request, shared())
    gen = ul.load_generator(made / "s2")
    label = np.arange(40) % 10
    image = gen.sample(label, seed=3)
    with np.load(tmp_path / "out.npz") as data:
        np.testing.assert_array_equal(data["arr_0"], image.repeat(3, -1))
        np.testing.assert_array_equal(data["arr_1"], label)
    train = datasets.collect(gen.config, "train", 50_000)["image"]
    ours, theirs = of(inception, image), of(inception, train)

    def distance(name):
        pair = (frechet.fit_gaussian(np.asarray(f[name])) for f in (ours, theirs))
        return frechet.distance(*pair)

    near = dict(rtol=1e-4)
    np.testing.assert_allclose(record["fid"], distance("pool"), **near)
    np.testing.assert_allclose(record["sfid"], distance("spatial"), **near)
    score = inception_score.InceptionScore()
    score.add(np.asarray(ours["probs"]))
    np.testing.assert_allclose(record["inception_score"], score.value(), **near)
    both = precision_recall.precision_recall(ours["pool"], theirs["pool"])
    assert (record["precision"], record["recall"]) == both
    assert record["fd_dinov2"] > 0 and record["frechet"] > record["frechet_real"] > 0
    assert record["printed"]["fid"] == "FID@40" and "frechet" not in record["printed"]
    assert record["skipped"] == {} and record["evaluation"] == "generation"
    (reference,) = record["protocol"]["references"]
    assert reference["num_images"] == len(train) == 1437
    assert record["protocol"]["networks"]["inception"]["sha256"] == "d1"


def test_reconstructions_are_compared_with_their_originals(made, monkeypatch):
    monkeypatch.setattr(datasets, "rows_at_once", lambda shape, batch: 16)
    monkeypatch.setattr(reconstruction.__globals__["lpips"], "MIN_SIDE", 8)
    metrics = ("psnr", "ssim", "lpips", "rfid", "reconstruction_frechet")
    request = Request(workdir=str(made / "s1"), num_examples=40, metrics=metrics)
    record = reconstruction(request, shared())
    ae = ul.load_autoencoder(made / "s1")
    image = datasets.collect(ae.config, "eval", 40)["image"]
    again = ae.reconstruct(image)
    ours, theirs = of(inception, again), of(inception, image)
    pair = (frechet.fit_gaussian(np.asarray(f["pool"])) for f in (ours, theirs))
    np.testing.assert_allclose(record["rfid"], frechet.distance(*pair), rtol=1e-4)
    apart = np.abs(image.astype(float) - again) / 255.0
    np.testing.assert_allclose(record["lpips"], apart.mean(), rtol=1e-5)
    assert record["printed"] == {"rfid": "rFID@40"}
    assert "flat window 7" in record["protocol"]["ssim"]
    assert "rate_bpp" not in record and "bound_bpd" not in record


@pytest.mark.slow
def test_what_is_missing_is_skipped_by_name_and_never_a_number(made, capsys):
    request = Request(workdir=str(made / "s2"), num_examples=20)
    record = evaluation.generator(request, shared(only=("inception",)))
    assert record["skipped"] == {"fd_dinov2": "dinov2.safetensors is missing"}
    assert "fd_dinov2" not in record and record["fid"] > 0
    assert "skipped: fd_dinov2: dinov2" in capsys.readouterr().out
    assert record["class_accuracy"] <= 1 and record["base_rate_bpp"] > 0
    request = Request(workdir=str(made / "s1"), num_examples=20, metrics=("lpips",))
    assert "at least 16" in reconstruction(request, shared())["skipped"]["lpips"]


def make(out, split="train", metrics=("fid", "precision", "fd_dinov2"), **how):
    parsed, nets = untrained.parsed("digits", "smoke"), FakeNetworks(SHAPE)
    return evaluation.make_reference(
        parsed, str(out), split=split, metrics=metrics, networks=nets, **how
    )


@pytest.mark.slow
def test_a_reference_file_gives_what_the_training_images_give(made, tmp_path, capsys):
    make(tmp_path / "ref.npz")
    common = dict(workdir=str(made / "s2"), num_examples=20)
    metrics = ("fid", "precision", "recall", "fd_dinov2", "sfid", "frechet")
    request = Request(
        **common, metrics=metrics, reference=str(tmp_path / "ref.npz"), seed=7
    )
    record = evaluation.generator(request, shared())
    own = evaluation.generator(Request(**common, metrics=metrics, seed=7), shared())
    for name in ("fid", "precision", "recall", "fd_dinov2", "frechet"):
        np.testing.assert_allclose(record[name], own[name], rtol=1e-9)
    assert "has no spatial" in record["skipped"]["sfid"] and "sfid" not in record
    used = {r["file"]: r["metrics"] for r in record["protocol"]["references"]}
    assert used.keys() == {None, str(tmp_path / "ref.npz")}
    assert used[None] == ["frechet"]  # of which the file says nothing
    other = shared(digest="d2")
    with pytest.raises(ConfigError, match="another protocol: dinov2 sha256 d1 there"):
        evaluation.generator(request, other)
    make(tmp_path / "ref.npz")
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="split: train there, eval here"):
        make(tmp_path / "ref.npz", split="eval")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(metrics=("inception_score",)), "unknown 'inception_score'"),
        (dict(metrics=("fvd",)), "fvd needs videos"),
        (dict(split="test"), "known are train, eval"),
    ],
)
def test_references_that_cannot_be_made(tmp_path, how, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "ref.npz", **how)
    with pytest.raises(ConfigError, match="must end in .npz"):
        make(tmp_path / "ref")


def test_a_reference_whose_making_was_killed_goes_on(tmp_path, monkeypatch):
    """kill -9 after the first part: what comes out is the same, bit for bit."""
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
    assert counts == [1437]  # of two parts the first was not read again
    assert [p.name for p in tmp_path.iterdir()] == ["ref.npz"]
    make(tmp_path / "whole.npz")
    with np.load(tmp_path / "ref.npz") as a, np.load(tmp_path / "whole.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_beginning_of_another_protocol_is_refused(tmp_path):
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "ref.npz", every_seconds=0.0, check=stop)
    with pytest.raises(ConfigError, match="begun.npz is of another protocol"):
        make(tmp_path / "ref.npz", metrics=("fid",))


@pytest.fixture
def copy(made, tmp_path):
    fresh = shutil.ignore_patterns("evals")
    shutil.copytree(made / "s1", tmp_path / "s1", ignore=fresh)
    return tmp_path / "s1"


def steps(workdir, step, weights=("ema",), **how):
    request = Request(workdir=str(workdir), num_examples=8, metrics=("psnr",), **how)
    found = runner.every(request, step, list(weights), ["1"])
    return [(r["step"], r["weights"]) for r in found]


def deleted(monkeypatch, workdir, at):
    """The step `at` goes away, as a trainer's would, while it is read."""
    real = store.read_item

    def read(step, item, abstract=None):
        if step.name == str(at) and step.exists():
            (Path(workdir) / "verified" / f"{at}.json").unlink()
            shutil.rmtree(step)
        return real(step, item, abstract)

    monkeypatch.setattr(store, "read_item", read)


@pytest.mark.slow
def test_all_steps_with_both_weights(copy):
    both = ["ema", "raw"]
    want = [(2, "ema"), (2, "raw"), (4, "ema"), (4, "raw")]
    assert steps(copy, "all", both) == want
    assert len(list((copy / "evals").glob("*.json"))) == 4
    assert steps(copy, "latest") == [(4, "ema")] and steps(copy, "2") == [(2, "ema")]


def test_a_step_that_is_deleted_while_it_is_read_is_passed_over(
    copy, monkeypatch, caplog
):
    deleted(monkeypatch, copy, 2)
    assert steps(copy, "all") == [(4, "ema")]
    assert "step 2 is skipped, it was deleted meanwhile" in caplog.text


def test_for_a_latest_step_that_is_deleted_the_next_is_taken(copy, monkeypatch):
    deleted(monkeypatch, copy, 4)
    assert steps(copy, "latest") == [(2, "ema")]


def test_a_damaged_step_is_an_error_and_not_passed_over(copy):
    for file in (copy / "checkpoints" / "2" / "state").rglob("d/*"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step 2 cannot be read"):
        steps(copy, "all")


def test_mistakes_are_one_line(made, copy):
    with pytest.raises(ConfigError, match="not latest, all or a number"):
        steps(copy, "newest")
    with pytest.raises(CheckpointError, match="no verified step 3, only"):
        steps(copy, "3")
    with pytest.raises(ConfigError, match="--reference is about samples"):
        steps(copy, "all", reference="x.npz")
    with pytest.raises(ConfigError, match="--npz takes the samples of one"):
        request = Request(workdir=str(made / "s2"), npz="x.npz")
        list(runner.every(request, "latest", ["ema", "raw"], ["1"]))
    with pytest.raises(ConfigError, match="unknown 'fid'; known are rate"):
        request = Request(workdir=str(copy), metrics=("fid",))
        list(runner.every(request, "latest", ["ema"], ["1"]))
    with pytest.raises(ConfigError, match="are not numbers"):
        list(runner.every(Request(workdir=str(copy)), "latest", ["ema"], ["one"]))
    with pytest.raises(DataError, match="nothing.npz cannot be read"):
        request = Request(workdir=str(made / "s2"), reference="nothing.npz")
        evaluation.generator(request, shared())


def test_both_weights_of_a_run_without_an_average(copy):
    record = json.loads((copy / "config.json").read_text())
    record["config"]["ema"] = [0.9]
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"has no ema/0\.9"):
        steps(copy, "latest", ["ema", "raw"])
    record["config"]["ema"] = []
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="ema"):
        steps(copy, "latest", ["ema", "raw"])


@pytest.mark.slow
def test_the_recorded_command_gives_the_same_numbers_bit_for_bit(command, made):
    """On one device, of a checkpoint that eight wrote."""
    where, weights = str(made / "s2"), str(made / "no weights")
    out = command(
        "evaluate", f"--workdir={where}", "--num_examples=20", "--guidance=1.5",
        "--labels=random", "--seed=5", "--weights=raw",
        env={"UL_WEIGHTS": weights},
    )  # fmt: skip
    assert "labels: uniformly random" in out and "skipped fid:" in out
    first = read(where, "generation-guidance1.5-4-raw-seed5-n20")
    words = shlex.split(first["command"])
    assert f"--weights_dir={weights}" in words
    assert words[:3] == ["python", "-m", "launch.evaluate"] and "--step=4" in words
    for file in (made / "s2" / "evals").glob("generation-guidance1.5-4-raw*"):
        file.unlink()
    command("evaluate", *words[3:])
    again = read(where, "generation-guidance1.5-4-raw-seed5-n20")
    assert first.pop("written") and again.pop("written")
    assert first == again and first["frechet"] > 0


@pytest.mark.slow
def test_references_have_a_command_of_their_own(command, tmp_path):
    common = ("--config=experiments/digits.py:smoke", "--metrics=frechet")
    out = tmp_path / "eval.npz"
    command("evaluate", f"--make_reference={out}", "--split=eval", *common)
    with np.load(out, allow_pickle=False) as data:
        assert data["mu_pixels_8x8"].shape == (64,) and int(data["num_images"]) == 360
    missing = command("evaluate", f"--make_reference={tmp_path / 'x.npz'}", code=64)
    assert "--config is missing" in missing
    assert references.SPLITS == ("train", "eval")
