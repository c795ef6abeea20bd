"""Importing a Stable-Diffusion-style autoencoder and using it as a stage 1."""

import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import ul
from tests.lib.breaks import Break
from ul import evaluation
from ul.checkpoints import reading
from ul.config import TrainConfig
from ul.core import trees
from ul.core.errors import CheckpointError, ConfigError, DataError
from ul.evaluation import table
from ul.importing import autoencoder_weights
from ul.inference import api
from ul.metrics import extractors
from ul.runs import session
from ul.stages import registry
from ul.stages.external import ExternalConfig

CONFIG = "experiments/external.py"


def plain(variant="tiny"):
    return registry.to_dict(
        importlib.import_module("experiments.external").get_config(variant)
    )


def parsed(**changes):
    return registry.parse(plain() | changes, ExternalConfig)


TINY = parsed()


def shapes(c=TINY):
    stage = registry.build(c)
    return jax.eval_shape(lambda: stage.init(jax.random.key(0)))


SHAPES = shapes()


def random_tensors(seed=0):
    """Random weights with AutoencoderKL's names and PyTorch's layouts."""
    rng, tensors = np.random.default_rng(seed), {}
    for path, leaf in trees.leaves_by_path(SHAPES).items():
        name, shape = (
            autoencoder_weights._tensor_name(path),
            autoencoder_weights._torch_shape(leaf.shape),
        )
        std = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        value = rng.normal(0.0, std, shape) + path.endswith("scale")
        tensors[name] = value.astype(np.float32)
    return tensors


def compvis_name(name, levels=3):
    """Return the name in the original latent diffusion code of AutoencoderKL's `name`."""
    for pattern, new in (
        (r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}"),
        (r"down_blocks\.(\d+)", r"down.\1"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"resnets", "block"),
        (r"(down|up)samplers\.0", r"\1sample"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
    ):
        name = re.sub(pattern, new, name)
    return f"first_stage_model.{name}"


def older_name(name):
    """Return the name in older diffusers versions of AutoencoderKL's `name`."""
    for new, old in (
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ):
        name = name.replace(f".{new}.", f".{old}.")
    return name


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vae.safetensors"
    save_file(random_tensors(), path)
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory, weights):
    workdir = tmp_path_factory.mktemp("imported")
    autoencoder_weights.import_autoencoder(parsed(), str(weights), str(workdir))
    return workdir


def test_names_are_those_of_the_published_weights():
    full = trees.leaves_by_path(
        shapes(parsed(networks=plain("autoencoder")["networks"]))
    )
    names = {
        autoencoder_weights._tensor_name(p): autoencoder_weights._torch_shape(v.shape)
        for p, v in full.items()
    }
    for name, shape in (
        ("encoder.down_blocks.0.downsamplers.0.conv.weight", [128, 128, 3, 3]),
        ("decoder.up_blocks.2.resnets.0.conv_shortcut.weight", [256, 512, 1, 1]),
        ("decoder.mid_block.attentions.0.to_q.weight", [512, 512]),
        ("decoder.mid_block.attentions.0.to_out.0.bias", [512]),
        ("quant_conv.weight", [8, 8, 1, 1]),
        ("post_quant_conv.bias", [4]),
    ):
        assert names[name] == shape
    # The numbers for Stable Diffusion 1.
    assert (len(names), sum(v.size for v in full.values())) == (248, 83_653_863)


@pytest.mark.parametrize("rename", [older_name, compvis_name])
def test_other_names_for_the_same_weights(tmp_path, weights, rename):
    """CompVis has the linear layers of attention as 1x1 convolutions."""
    tensors = {
        rename(name): value[:, :, None, None]
        if ".to_" in name and value.ndim == 2
        else value
        for name, value in random_tensors().items()
    }
    if rename is compvis_name:
        tensors["model.diffusion_model.out.weight"] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "other.safetensors")
    expected = autoencoder_weights.convert_to_params(
        autoencoder_weights.read_tensors(str(weights)), SHAPES, 3
    )
    params = autoencoder_weights.convert_to_params(
        autoencoder_weights.read_tensors(str(tmp_path / "other.safetensors")), SHAPES, 3
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_half_precision_is_read(tmp_path):
    halves = {
        name: np.asarray(jnp.asarray(value, dtype))
        for dtype in (jnp.bfloat16, jnp.float16)
        for name, value in list(random_tensors().items())[
            :: 1 if dtype == jnp.bfloat16 else 2
        ]
    }
    assert len({v.dtype for v in halves.values()}) == 2
    save_file(halves, tmp_path / "half.safetensors")
    tensors = autoencoder_weights.read_tensors(str(tmp_path / "half.safetensors"))
    for name, value in halves.items():
        np.testing.assert_array_equal(tensors[name], value.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("encoder.conv_in.bias"),
            "1 tensors do not: encoder.conv_in.bias is missing",
        ),
        (lambda t: t.update(more=np.ones(3)), "more is not known"),
        (
            lambda t: t.update({"decoder.conv_in.weight": np.ones((32, 8, 3, 3))}),
            r"decoder.conv_in.weight has shape \[32, 8, 3, 3\]",
        ),
        (
            lambda t: t.update({"decoder.mid.block_1.conv1.bias": np.ones(32)}),
            "decoder.mid.block_1.conv1.bias is there twice",
        ),
        (
            lambda t: [t.pop(n) for n in list(t) if "conv1" in n],
            "26 tensors do not: .*; .*; .*. Pass the config.json of these weights as "
            "--vae_config",
        ),
    ],
)
def test_every_tensor_is_used_and_every_parameter_filled(change, message):
    tensors = random_tensors()
    change(tensors)
    with pytest.raises(DataError, match=message):
        autoencoder_weights.convert_to_params(tensors, SHAPES, 3)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.bin", lambda p: p.write_bytes(b"any"), "it is a pickle"),
        (
            "a.safetensors",
            lambda p: p.write_bytes(b"PK\x03\x04 zipped"),
            "it is a pickle",
        ),
        (
            "a.safetensors",
            lambda p: p.write_bytes(b"\x80\x02}q\x00."),
            "it is a pickle",
        ),
        ("a.safetensors", lambda p: None, "No such file"),
        ("a.safetensors", lambda p: p.write_bytes(b""), "as safetensors"),
        (
            "a.safetensors",
            lambda p: p.write_bytes(b"any text at all"),
            "as safetensors",
        ),
        (
            "a.safetensors",
            lambda p: save_file({"a": np.asarray([1.0, np.nan])}, p),
            "must have finite values; a contains NaN or infinity",
        ),
        (
            "a.safetensors",
            lambda p: save_file({"a": np.arange(3)}, p),
            "must be of a floating-point type; a is int64",
        ),
    ],
)
def test_nothing_is_written_for_files_that_cannot_be_used(
    tmp_path, name, write, message
):
    write(tmp_path / name)
    with pytest.raises(DataError, match=message) as e:
        autoencoder_weights.import_autoencoder(
            parsed(), str(tmp_path / name), str(tmp_path / "w")
        )
    assert "\n" not in str(e.value) and not (tmp_path / "w").exists()


def test_a_safetensors_file_that_starts_like_a_pickle_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    for n in range(500, 600):  # The header is padded to a multiple of eight bytes.
        save_file({"a": np.ones(3, np.float32)}, path, {"note": "x" * n})
        if path.read_bytes().startswith(b"\x80\x02"):
            break
    assert path.read_bytes().startswith(b"\x80\x02")
    np.testing.assert_array_equal(
        autoencoder_weights.read_tensors(str(path))["a"], np.ones(3)
    )


def test_a_truncated_file_is_refused(tmp_path, weights):
    (tmp_path / "truncated.safetensors").write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        autoencoder_weights.read_tensors(str(tmp_path / "truncated.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"image_shape": (30, 32, 3)}},
            "divisible by .* downsampling 4; got 30x32",
        ),
        ({"networks": {"groups": 7}}, "divisible by networks.groups; got 16 and 7"),
        ({"networks": {"blocks": 0}}, "at least 1"),
        ({"networks": {"channels": ()}}, "at least 1"),
        ({"networks": {"block": 1}}, "Did you mean networks.blocks"),
        ({"scale": 0.0}, "scale must be positive; got 0.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    changed = plain()
    for key, value in changes.items():
        changed[key] = changed[key] | value if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        registry.build(registry.parse(changed, ExternalConfig))


def vae_config(path, **changes):
    """Write a config.json like that of Stable Diffusion 3, in the sizes of `tiny`."""
    values = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.30.0",
        "act_fn": "silu",
        "block_out_channels": [16, 16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "force_upcast": True,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "latents_mean": None,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
    }
    path.write_text(json.dumps(values | changes))
    return str(path)


def test_sizes_scale_and_shift_come_from_config_json(tmp_path):
    applied = autoencoder_weights.apply_vae_config(
        parsed(networks=plain("autoencoder")["networks"]), vae_config(tmp_path / "c")
    )
    assert applied.networks == plain()["networks"]
    assert (applied.scale, applied.shift, applied.latent_logsnr) == (
        1.5305,
        0.0609,
        10.0,
    )
    (tmp_path / "old").write_text(json.dumps({"block_out_channels": [32, 64]}))
    applied = autoencoder_weights.apply_vae_config(parsed(), str(tmp_path / "old"))
    assert (applied.scale, applied.shift) == (0.18215, 0.0)
    assert applied.networks["quant_conv"] and applied.networks["groups"] == 32


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"_class_name": "VQModel"},
            DataError,
            "_class_name must be 'AutoencoderKL', .* got 'VQModel'",
        ),
        ({"act_fn": "relu"}, DataError, "act_fn must be 'silu', .* got 'relu'"),
        ({"latents_std": [1.0]}, DataError, "latents_std must be None, .* got"),
        (
            {"up_block_types": ["Attn"]},
            DataError,
            r"up_block_types must .* got \['Attn'\]",
        ),
        (
            {"in_channels": 4},
            ConfigError,
            "in_channels must be 3, .* data.image_shape; got 4",
        ),
        (
            {"block_out_channels": "wide"},
            ConfigError,
            "networks.channels must be .* got 'wide'",
        ),
        (
            {"scaling_factor": "big"},
            ConfigError,
            "scale must be of type float; got 'big'",
        ),
    ],
)
def test_configs_of_other_networks_are_refused(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        registry.build(
            autoencoder_weights.apply_vae_config(
                parsed(), vae_config(tmp_path / "c", **changes)
            )
        )


@pytest.mark.parametrize("text", ["[1", "[1]", '"text"', "3"])
def test_a_config_that_is_not_a_json_object_is_refused(tmp_path, text):
    (tmp_path / "c").write_text(text)
    with pytest.raises(DataError, match="cannot be read as a config.json"):
        autoencoder_weights.apply_vae_config(parsed(), str(tmp_path / "c"))


def test_latents_are_the_scaled_mean_and_decoding_undoes_it(imported):
    """The networks are called directly, without the codec."""
    ae = api.load_autoencoder(imported)
    networks = registry.build(parsed()).networks
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x = image.astype(np.float32) / 127.5 - 1.0
    apply = jax.jit(networks["encoder"].module.apply)
    mean = apply({"params": ae.params["encoder"]}, jnp.asarray(x))
    z = ae.encode(image)
    np.testing.assert_allclose(z, 0.18215 * (mean - 0.1), atol=1e-5)
    alpha = np.sqrt(1 / (1 + np.exp(-10.0)))
    x_hat = jax.jit(networks["decoder"].module.apply)(
        {"params": ae.params["decoder"]}, mean
    )
    expected = np.clip(np.round((x_hat + 1) * 127.5), 0, 255)
    decoded = ae.decode(np.float32(alpha) * z, noisy=True)
    assert np.abs(decoded - expected).max() <= 1  # rounding
    assert decoded.std() > 1 and z.std() > 0.01


def test_importing_again_changes_nothing(tmp_path, weights, imported):
    assert reading.verified_steps(imported) == [0]
    record = json.loads((imported / "config.json").read_text())
    assert (
        registry.parse(registry.to_dict(record["config"]), ExternalConfig) == parsed()
    )
    assert record["provenance"]["weights"]["file"] == str(weights)
    before = json.loads((imported / "verified" / "0.json").read_text())["digests"]
    autoencoder_weights.import_autoencoder(parsed(), str(weights), str(imported))
    assert (
        json.loads((imported / "verified" / "0.json").read_text())["digests"] == before
    )
    save_file(random_tensors(seed=1), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="vae.safetensors. Choose another --workdir"):
        autoencoder_weights.import_autoencoder(
            parsed(), str(tmp_path / "other.safetensors"), str(imported)
        )
    with pytest.raises(ConfigError, match="scale: 0.18215 -> 2.0"):
        autoencoder_weights.import_autoencoder(
            parsed(scale=2.0), str(weights), str(imported)
        )


def test_an_interrupted_import_is_finished(tmp_path, weights, imported):
    autoencoder_weights.import_autoencoder(parsed(), str(weights), str(tmp_path))
    (tmp_path / "verified" / "0.json").unlink()
    with pytest.raises(CheckpointError, match="no verified checkpoint"):
        api.load_autoencoder(tmp_path)
    autoencoder_weights.import_autoencoder(parsed(), str(weights), str(tmp_path))
    one, other = (w / "verified" / "0.json" for w in (tmp_path, imported))
    assert one.read_text() == other.read_text()


def test_it_is_evaluated_without_a_rate(imported):
    request = evaluation.Request(workdir=str(imported), num_examples=4)
    record = evaluation.evaluate_autoencoder(
        request, evaluation.EvaluationContext(extractors.FeatureNetworks(None))
    )
    assert record["psnr_db"] > 0 and record["ssim"] <= 1 and record["step"] == 0
    assert "rate_bpp" not in record and "no rate" in record["skipped"]["rate"]
    assert record["decoder"] == "one call" and "rate" not in record["protocol"]
    assert "reconstruction" in table.table([record])


def test_stage2_trains_on_its_latents(imported):
    c = plain("smoke2")
    c["stage1"]["workdir"] = str(imported)
    run, provenance = session.build_run(registry.parse(c), {})
    assert provenance["stage1"]["step"] == 0
    batch = {"image": jnp.full((4, 32, 32, 3), 99, jnp.uint8), "row": jnp.arange(4)}
    z = run.prepare(batch, 3, None)["z_clean"]
    expected = api.load_autoencoder(imported).encode(
        np.full((4, 32, 32, 3), 99, np.uint8)
    )
    np.testing.assert_allclose(z, expected, atol=1e-5)
    for key, value, message in (
        (
            "latent_shape",
            (8, 8, 8),
            r"latent_shape must be \(8, 8, 4\), .* got \(8, 8, 8\)",
        ),
        (
            "schedule",
            c["schedule"] | {"logsnr_max": 5.0},
            "logsnr_max must be 10.0, .* got 5.0",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            session.build_run(registry.parse(c | {key: value}), {})


def test_it_cannot_be_trained(imported):
    with pytest.raises(
        ConfigError, match="stage must be one of .* here; got 'external'"
    ):
        registry.parse(plain(), TrainConfig)
    with pytest.raises(ConfigError, match="weights must be one of .*; got 'ema:0.9'"):
        api.load_autoencoder(imported, weights="ema:0.9")


@pytest.mark.slow
def test_the_commands(tmp_path, command, weights):
    """Import, train stage 2, evaluate and sample; a wrong file is refused in one line."""
    one, two = tmp_path / "vae", tmp_path / "base"
    arguments = (f"--config={CONFIG}:tiny", f"--workdir={one}")
    sizes = f"--vae_config={vae_config(tmp_path / 'config.json')}"
    out = command("import_autoencoder", *arguments, f"--weights={weights}", sizes)
    assert "latents 8x8x4 with scale 1.5305, shift 0.0609" in out
    command(
        "train",
        f"--config={CONFIG}:smoke2",
        f"--workdir={two}",
        f"--config.stage1.workdir={one}",
        "--config.log.tensorboard=false",
    )
    command("evaluate", f"--workdir={two}", "--num_examples=4")
    (written,) = (two / "evals").glob("*.json")
    assert json.loads(written.read_text())["base_rate_bpp"] > 0
    command("sample", f"--workdir={two}", "--num=2", f"--out={tmp_path / 'drawn'}")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    assert ul.load_generator(two).sample([1]).shape == (1, 32, 32, 3)
    out = command(
        "import_autoencoder", *arguments, f"--weights={tmp_path}/a.ckpt", code=65
    )
    assert out.strip().count("\n") == 0 and "Traceback" not in out


BREAKS = (
    Break(
        "latents of an imported autoencoder without the shift",
        "ul/stages/external.py",
        "config.scale * (mean - config.shift)",
        "config.scale * mean",
        "test_latents_are_the_scaled_mean_and_decoding_undoes_it",
    ),
    Break(
        "an imported decoder upside down",
        "ul/importing/autoencoder_weights.py",
        "levels - 1 - int(m[1])",
        "int(m[1])",
        "test_other_names_for_the_same_weights",
    ),
    Break(
        "other weights in the same workdir",
        "ul/importing/autoencoder_weights.py",
        'if weights["sha256"] != digest:',
        "if False:",
        "test_importing_again_changes_nothing",
    ),
    Break(
        "a pickle passed to the safetensors reader",
        "ul/importing/autoencoder_weights.py",
        "if is_pickle(start) or path.endswith(PICKLE_SUFFIXES):",
        "if False:",
        "test_nothing_is_written_for_files_that_cannot_be_used",
    ),
)
