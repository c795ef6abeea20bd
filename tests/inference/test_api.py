"""What loaders take besides a trained workdir: exports, without it and without Orbax,
bit for bit what the run gives; guides, which must be of the same latents."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import ul
from tests.lib.breaks import Break
from tests.lib.commands import ROOT
from tests.lib.untrained import leave, parsed
from ul import evaluation
from ul.config import construct
from ul.core.errors import CheckpointError, ConfigError, DataError
from ul.evaluation import runner
from ul.inference import export, weights
from ul.models.encoder import Encoder

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both stages untrained, exported; then the workdirs go away from where they were."""
    root = tmp_path_factory.mktemp("exports")
    s1 = leave(root / "s1", parsed("digits", "smoke"))
    c = parsed(
        "digits", "smoke2", **{"stage1": dict(workdir=s1, step=2, weights="raw")}
    )
    s2 = leave(root / "s2", c)
    export.export(s1, root / "ae", step=2, weights="raw")
    export.export(s2, root / "gen")
    want = {
        "z": ul.load_autoencoder(s1, step=2, weights="raw").encode(IMAGES),
        "sample": ul.load_generator(s2).sample([1, 2], guidance=1.5, seed=3),
    }
    (root / "runs").mkdir()
    for name in ("s1", "s2"):
        shutil.move(root / name, root / "runs" / name)
    return root, want


def test_an_export_gives_bit_for_bit_what_the_run_gives(made):
    root, want = made
    ae = ul.load_autoencoder(root / "ae")
    assert (ae.step, ae.weights) == (2, "raw")
    np.testing.assert_array_equal(ae.encode(IMAGES), want["z"])
    got = ul.load_generator(root / "gen").sample([1, 2], guidance=1.5, seed=3)
    np.testing.assert_array_equal(got, want["sample"])


def test_latents_that_are_not_finite_are_refused(made):
    root, want = made
    ae = ul.load_autoencoder(root / "ae")
    with pytest.raises(DataError, match="latents must be finite"):
        ae.decode(want["z"] * np.nan)


def test_a_step_that_is_missing_is_mentioned(made, caplog, tmp_path):
    run = tmp_path / "s1"
    shutil.copytree(made[0] / "runs" / "s1", run)
    shutil.rmtree(run / "checkpoints" / "4")
    assert ul.load_autoencoder(run).step == 2
    assert "records step 4, which is missing from checkpoints/; step 2" in caplog.text


def test_a_loaded_model_prints_as_one_line(made):
    root, _ = made
    ae, gen = ul.load_autoencoder(root / "ae"), ul.load_generator(root / "gen")
    for model in (ae, gen):
        assert "\n" not in repr(model) and len(repr(model)) < 300
    assert "image_shape=(8, 8, 1), latent_shape=(4, 4, 4), step=2" in repr(ae)


def test_the_rate_of_each_image_and_where_its_bits_are(made):
    """The mean of a map is the rate, but for the noisy end, which is almost pure noise."""
    root, _ = made
    with pytest.raises(ConfigError, match="Pass with_prior=True"):
        ul.load_autoencoder(root / "runs" / "s1").rate(IMAGES)
    ae = ul.load_autoencoder(root / "runs" / "s1", with_prior=True)
    rate, maps = ae.rate(IMAGES), ae.bit_maps(IMAGES)
    assert rate.shape == (3,) and maps.shape == (3, 4, 4) and (rate > 0).all()
    assert len(set(rate.tolist())) == 3
    terminal = rate - maps.mean((1, 2))
    assert (terminal > 0).all() and (terminal < 0.01).all()
    np.testing.assert_array_equal(ae.rate(IMAGES, seed=0), rate)
    assert not np.array_equal(ae.rate(IMAGES, seed=1), rate)


def test_any_class_is_asked_for_by_name(made):
    gen = ul.load_generator(made[0] / "gen")
    any_class = gen.sample(ul.AnyClass(2), seed=3)
    assert any_class.shape == (2, 8, 8, 1)
    for labels in ([0, 10], [-1, 0]):
        with pytest.raises(
            DataError, match=r"from 0 to 9; got .* ul.AnyClass\(count\)"
        ):
            gen.sample(labels)
    np.testing.assert_array_equal(
        gen.sample({"label": ul.AnyClass(2)}, seed=3), any_class
    )


def test_it_loads_where_there_is_no_orbax(made):
    root, want = made
    np.save(root / "images.npy", IMAGES)
    code = (
        "import sys; sys.modules['orbax'] = None; import ul, numpy as np; "
        f"gen = ul.load_generator(r'{root}/gen'); ae = gen.autoencoder; "
        f"np.save(r'{root}/z.npy', ae.encode(np.load(r'{root}/images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    np.testing.assert_allclose(np.load(root / "z.npy"), want["z"], atol=1e-5)


def test_a_network_is_built_from_its_json_alone(made):
    root, want = made
    says = json.loads((root / "ae" / "encoder.json").read_text())
    settings = {
        k: tuple(v) if isinstance(v, list) else v for k, v in says["settings"].items()
    }
    assert settings.pop("kind") == "resnet"
    encoder = construct("encoder", Encoder, settings, dtype=jnp.dtype(says["dtype"]))
    params: dict = {}
    flat = safetensors.numpy.load_file(root / "ae" / "encoder.safetensors")
    for name, value in flat.items():
        *where, last = name.split(".")
        at = params
        for part in where:
            at = at.setdefault(part, {})
        at[last] = value
    x = jnp.asarray(IMAGES / np.float32(127.5) - 1)
    z = encoder.apply({"params": params}, x)
    np.testing.assert_allclose(z, want["z"], atol=1e-5)
    assert says["latent_shape"] == list(z.shape[1:]) == [4, 4, 4]
    assert (says["latent_logsnr"], says["num_classes"]) == (5.0, 10)
    assert says["source"]["step"] == 2 and says["source"]["weights"] == "raw"
    provenance = json.loads((root / "gen" / "config.json").read_text())["provenance"]
    assert says["source"]["digest"] == provenance["stage1"]["encoder"]
    base = json.loads((root / "gen" / "base.json").read_text())
    assert base["schedule"]["kind"] == "linear" and base["settings"]["widths"] == [32]


def test_a_second_export_changes_nothing_and_another_is_refused(made):
    root, _ = made
    s1, out = root / "runs" / "s1", root / "twice"
    export.export(s1, out, step=2)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / "config.json").unlink()  # as after a kill
    export.export(s1, out, step=2)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    with pytest.raises(ConfigError, match="must be new or have the same content"):
        export.export(s1, out, step=2, weights="raw")
    with pytest.raises(
        ConfigError, match="config.json must be new or have the same content"
    ):
        export.export(s1, root / "runs" / "s2", step=2)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made[0] / "ae", tmp_path / "ae")
    return tmp_path / "ae"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite(path, change):
    """Change a config.json by hand, without its digest."""
    record = json.loads(path.read_text())
    del record["digest"]
    change(record)
    path.write_text(json.dumps(record))


def other_version(path):
    rewrite(path, lambda record: record["export"].update(format=2))


def flipped_setting(path):
    path.write_text(
        path.read_text().replace('"latent_channels": 4', '"latent_channels": 5')
    )


@pytest.mark.parametrize(
    ("file", "harm", "error", "message"),
    [
        (
            "decoder.safetensors",
            flip,
            DataError,
            "decoder.* is damaged or belongs to another",
        ),
        (
            "encoder.safetensors",
            lambda p: p.unlink(),
            DataError,
            "cannot be read: No such",
        ),
        (
            "config.json",
            other_version,
            ConfigError,
            "must have format 1; got 2",
        ),
        (
            "config.json",
            flipped_setting,
            ConfigError,
            "must be as the run wrote it; its content does not have its digest",
        ),
        ("config.json", lambda p: p.unlink(), ConfigError, "No run found in"),
    ],
)
def test_what_is_damaged_is_said_in_one_line(copy, file, harm, error, message):
    harm(copy / file)
    with pytest.raises(error, match=message) as e:
        ul.load_autoencoder(copy)
    assert "\n" not in str(e.value)


def test_a_network_of_another_shape_is_refused(copy):
    path = copy / "config.json"
    rewrite(path, lambda record: record["config"]["encoder"].update(latent_channels=5))
    with pytest.raises(
        DataError, match="must hold the network of the config, but 1 tensors differ"
    ):
        ul.load_autoencoder(copy)


def test_an_export_has_one_step_and_one_set_of_weights(copy):
    assert weights.steps(copy) == [2]
    with pytest.raises(CheckpointError, match="holds step 2 only; got step 4"):
        ul.load_autoencoder(copy, step=4)
    with pytest.raises(ConfigError, match="holds weights 'raw' only; got 'ema:0.998'"):
        ul.load_autoencoder(copy, weights="ema:0.998")
    assert ul.load_autoencoder(copy, step=2, weights="raw").step == 2


def test_an_export_is_evaluated_as_a_workdir(copy):
    request = evaluation.Request(workdir=str(copy), num_examples=2, metrics=("psnr",))
    (record,) = runner.run_all(request, "latest", ["ema"], ["1"])
    assert (record["step"], record["weights"]) == (2, "raw")


@pytest.mark.slow
def test_pixels_and_single_stages_are_exported_too(tmp_path):
    for variant in ("pixels", "random_noise"):
        workdir = leave(tmp_path / variant, parsed("single_stage", variant), steps=(1,))
        export.export(workdir, tmp_path / "out" / variant)
        a, b = (
            jax.tree.leaves([gen.params, gen.autoencoder.params])
            for gen in map(ul.load_generator, (workdir, tmp_path / "out" / variant))
        )
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def generator(root, guiding_model):
    return ul.load_generator(root / "gen", guiding_model=guiding_model)


def test_a_guide_is_used_and_named(made):
    """A model that is guided by itself stays where it is, at any scale."""
    root, want = made
    labels, how = [1, 2], dict(guidance=3.0, seed=3)
    itself = generator(root, f"{root}/gen")
    plain = ul.load_generator(root / "gen").sample_latents(labels, seed=3)
    np.testing.assert_allclose(itself.sample_latents(labels, **how), plain, atol=1e-5)
    other = generator(root, f"{root}/runs/s2:2@raw")
    assert np.abs(other.sample_latents(labels, **how) - plain).max() > 1e-3
    np.testing.assert_array_equal(other.sample_latents(labels, seed=3), plain)
    about = {"workdir": str(root / "runs" / "s2"), "step": 2, "weights": "raw"}
    assert other.guiding_model.description.items() >= about.items()
    assert (
        other.guiding_model.description["digest"]
        != itself.guiding_model.description["digest"]
    )


@pytest.mark.slow
def test_an_evaluation_names_its_guide(made):
    root, _ = made
    request = evaluation.Request(
        workdir=str(root / "gen"),
        num_examples=2,
        metrics=("base_rate",),
        autoguidance=f"{root}/runs/s2:2",
    )
    one, two = runner.run_all(request, "latest", ["ema"], ["1", "2"])
    assert one["protocol"]["autoguidance"] == "unused at guidance 1"
    guide = two["protocol"]["autoguidance"]
    assert (guide["step"], guide["weights"]) == (2, "ema") and guide["digest"]
    assert f"--autoguidance={root}/runs/s2:2" in two["command"]
    assert two["autoguidance"] == f"{root}/runs/s2:2"


def changed(key, value):
    def change(record):
        *where, last = key.split(".")
        for part in where:
            record = record[part]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("provenance.stage1.encoder", "0"), r"the same encoder .* got 0"),
        (changed("config.schedule.logsnr_min", -9.0), "the same schedule"),
        (changed("config.latent_shape", [8, 8, 4]), "the same latent shape"),
        (changed("config.data.num_classes", 11), "the same data.num_classes"),
    ],
)
def test_a_guide_of_other_latents_is_refused_in_one_line(
    made, tmp_path, change, message
):
    root, _ = made
    shutil.copytree(root / "gen", tmp_path / "gen")
    rewrite(tmp_path / "gen" / "config.json", change)
    with pytest.raises(ConfigError, match=message) as e:
        generator(root, f"{tmp_path}/gen")
    assert "\n" not in str(e.value)


def test_a_guide_is_a_stage_2(made):
    root, _ = made
    with pytest.raises(
        ConfigError,
        match="ae cannot be used here: stage must be one of .*; got 'joint'",
    ):
        generator(root, f"{root}/ae")
    with pytest.raises(ConfigError, match="--autoguidance applies to samples"):
        request = evaluation.Request(
            workdir=str(root / "ae"), autoguidance=f"{root}/gen"
        )
        list(runner.run_all(request, "latest", ["ema"], ["1"]))
    with pytest.raises(CheckpointError, match="holds step 4 only; got step 7"):
        generator(root, f"{root}/gen:7")


BREAKS = (
    Break(
        "a damaged export is loaded",
        "ul/checkpoints/safetensors.py",
        "if hashlib.sha256(content).hexdigest() != digests.get(path.name):",
        "if False:",
        "test_what_is_damaged_is_said_in_one_line",
    ),
    Break(
        "a guiding model of other latents is accepted",
        "ul/inference/autoguidance.py",
        "if value != required:",
        "if False:",
        "test_a_guide_of_other_latents_is_refused_in_one_line",
    ),
)
