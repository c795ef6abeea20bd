"""Trained runs are evaluated, sampled from and loaded."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import ul
from ul.core.errors import CheckpointError, ConfigError, DataError
from ul.train import goodput


def read_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_evaluate_and_sample(trained, command, tmp_path):
    out = command("evaluate", f"--workdir={trained / 'smoke'}")
    assert "rate, bits/pixel" in out
    (file,) = (trained / "smoke" / "evals").glob("reconstruction-8-ema-*.json")
    record = json.loads(file.read_text())
    keys = {
        "rate_bpp",
        "rate_bpp_sem",
        "psnr_db",
        "ssim",
        "num_examples",
        "step",
        "seed",
    }
    assert keys <= record.keys() and record["protocol"]["sampler"]["num_steps"] == 4
    assert file.with_suffix(".png").exists()
    common = (f"--workdir={trained / 'smoke2'}", "--seed=3")
    command(
        "evaluate", *common, "--num_examples=20", "--guidance=1,1.5", "--weights=raw"
    )
    files = sorted((trained / "smoke2" / "evals").glob("*.json"))
    assert [json.loads(f.read_text())["guidance"] for f in files] == [1.0, 1.5]
    record = json.loads(files[0].read_text())
    assert record["frechet_features"] == "pixels_8x8" and record["weights"] == "raw"
    assert 0 <= record["class_accuracy"] <= 1 and record["class_accuracy_real"] > 0.97
    assert "not FID" in record["protocol"]["frechet"]
    command("sample", *common, "--num=3", "--labels=7", f"--out={tmp_path / 'some'}")
    names = sorted(p.name for p in (tmp_path / "some").iterdir())
    assert names == [f"00000{i}-class7.png" for i in range(3)]
    # A sample does not depend on how many are drawn.
    generator = ul.load_generator(trained / "smoke2")
    five = generator.sample([7] * 5, seed=3)
    for name, sample in zip(names, five, strict=False):
        np.testing.assert_array_equal(
            read_png(tmp_path / "some" / name), sample[..., 0]
        )
    grid = tmp_path / "grid.png"
    command("sample", *common, "--num=6", "--grid", "--columns=3", f"--out={grid}")
    assert read_png(grid).shape == (2 * 9 + 1, 3 * 9 + 1)
    both = f"--workdirs={trained / 'smoke'},{trained / 'smoke2'}"
    assert command("summary", both).count("generation-guidance") == 2
    assert "No evaluations" in command("summary", f"--workdirs={tmp_path}", code=65)
    shutil.copy(trained / "smoke" / goodput.FILE, tmp_path)  # a run without evaluations
    assert "| wall time |" in command("summary", f"--workdirs={tmp_path}")


def test_the_python_face(trained):
    ae = ul.load_autoencoder(trained / "smoke")
    images = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 1), np.uint8)
    z = ae.encode(images)
    assert (z.shape, z.dtype) == ((21, *ae.latent_shape), np.float32)
    np.testing.assert_array_equal(z, ae.encode(images))
    np.testing.assert_allclose(z[:2], ae.encode(images[:2]), atol=1e-5)
    assert (ae.decode(z).shape, ae.decode(z).dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(ae.decode(z, seed=4), ae.reconstruct(images, seed=4))
    assert np.any(ae.decode(z, seed=4) != ae.decode(z, seed=4, noisy=True))
    generator = ul.load_generator(trained / "smoke2")
    labels = [3, 1, 4, 9]
    samples = generator.sample(labels, guidance=1.5, seed=7)
    assert (samples.shape, samples.dtype) == ((4, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(
        generator.sample(labels[:2], guidance=1.5, seed=7), samples[:2]
    )
    with pytest.raises(DataError, match="labels"):
        generator.sample([11])
    with pytest.raises(DataError, match="from 0 to 9; got 99999999999"):
        generator.sample([99999999999])
    with pytest.raises(DataError, match="labels"):
        generator.sample([1.7])
    with pytest.raises(ConfigError, match="guidance"):
        generator.sample([1], guidance=float("nan"))
    with pytest.raises(ConfigError, match="seed"):
        generator.sample([1], seed=-1)
    with pytest.raises(DataError, match=r"uint8 \[N, 8, 8, 1\]"):
        ae.encode(images[..., 0])
    with pytest.raises(ConfigError, match="weights must be one of"):
        ul.load_autoencoder(trained / "smoke", weights="ema:0.5")
    with pytest.raises(ConfigError, match="got 'base'"):
        ul.load_autoencoder(trained / "smoke2")
    with pytest.raises(ConfigError, match="smoke has networks of its own"):
        ul.load_autoencoder(trained / "smoke", stage1_workdir="other")
    with pytest.raises(CheckpointError, match="no verified step 3"):
        ul.load_autoencoder(trained / "smoke", step=3)


def test_a_moved_pair_of_runs_still_loads(trained, tmp_path):
    shutil.copytree(trained / "smoke", tmp_path / "smoke")
    shutil.copytree(trained / "smoke2", tmp_path / "smoke2")
    record = json.loads((tmp_path / "smoke2" / "config.json").read_text())
    record["provenance"]["stage1"]["workdir"] = "/where/it/was/smoke"
    record.pop("digest", None)
    (tmp_path / "smoke2" / "config.json").write_text(json.dumps(record))
    assert ul.load_generator(tmp_path / "smoke2").sample([0]).shape == (1, 8, 8, 1)
    record["provenance"]["stage1"]["encoder"] = "00000000"
    record.pop("digest", None)
    (tmp_path / "smoke2" / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="another encoder"):
        ul.load_generator(tmp_path / "smoke2")
