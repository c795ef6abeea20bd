"""Inception and LPIPS against PyTorch, with the same random weights: `make oracle`.

UPDATE_GOLDENS=1 rewrites goldens.json with PyTorch's values.
"""

import json
import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.lib import oracle, torch_states
from ul.metrics.features import inception, lpips, resize, weights

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::UserWarning:torchvision.*"),
]
GOLDENS = Path(__file__).parent / "goldens.json"
IMAGES = {"inception": (1, 24, 17, 3), "lpips": (1, 17, 21, 3)}


def assert_close(actual, expected, limit=1e-4):
    """Return the largest difference, in units of the expected root mean square."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.sqrt(np.mean(np.square(expected)))
    assert error < limit, f"{error:.2e}"
    return error


def check_goldens(name, outputs):
    """Compare PyTorch's outputs with the golden values of the default suite."""
    excerpts = {
        key: [float(f"{v:.7g}") for v in torch_states.excerpt(values)]
        for key, values in outputs.items()
    }
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    if os.environ.get("UPDATE_GOLDENS"):
        goldens[name] = {"images": IMAGES[name]} | excerpts
        GOLDENS.write_text(json.dumps(goldens, indent=1) + "\n")
    for key, values in excerpts.items():
        assert_close(values, goldens[name][key], 1e-5)


def nchw(torch, image):
    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def pytorch_inception(tmp_path_factory):
    """Return torch, torch-fidelity's extractor with random weights, and its activations.

    The last is a dict that the layers fill when the extractor is called.
    """
    name = "torch_fidelity.feature_extractor_inceptionv3"
    module, torch = oracle.import_package(name), oracle.import_package("torch")
    path = tmp_path_factory.mktemp("torch") / "random.pth"
    state = {k: torch.from_numpy(v) for k, v in torch_states.inception_state().items()}
    torch.save(state, path)
    net = module.FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    activations = {}
    for layer, child in net.named_modules():
        child.register_forward_hook(
            lambda _, __, out, layer=layer: activations.__setitem__(layer, out)
        )
    return torch, net, activations


def test_inception_layer_by_layer(pytorch_inception):
    torch, net, activations = pytorch_inception
    image = torch_states.make_images(0, *IMAGES["inception"])
    pool, logits = net(nchw(torch, image))
    params = inception.from_torch(torch_states.inception_state())
    x = (resize.bilinear_tf1(jax.numpy.asarray(image), 299, 299) - 128) / 128
    errors = {}
    for block, outputs in inception.block_outputs(params, x):
        expected = activations[block or "MaxPool_2"].numpy().transpose(0, 2, 3, 1)
        errors[block] = assert_close(np.concatenate(outputs, -1), expected)
    actual = jax.jit(inception.features)(params, image)
    spatial = activations["Mixed_6d.branch1x1"][:, :7].permute(0, 2, 3, 1).flatten(1)
    expected = {
        "pool": pool.numpy(),
        "spatial": spatial.numpy(),
        "probs": torch.softmax(logits, 1).numpy(),
    }
    assert actual["spatial"].shape == (1, 2023)
    errors |= {k: assert_close(actual[k], expected[k]) for k in expected}
    check_goldens("inception", expected)
    print({k: f"{v:.1e}" for k, v in errors.items()})


@pytest.mark.parametrize("size", [(299, 299), (301, 298), (512, 400), (1, 1)])
def test_inception_at_other_sizes(pytorch_inception, size):
    torch, net, _ = pytorch_inception
    image = torch_states.make_images(1, 1, *size, 3)
    pool, _ = net(nchw(torch, image))
    params = inception.from_torch(torch_states.inception_state())
    assert_close(jax.jit(inception.features)(params, image)["pool"], pool.numpy())


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (299, 299), (512, 384), (37, 300)])
def test_resize(size):
    torch = oracle.import_package("torch")
    module = oracle.import_package("torch_fidelity.interpolate_compat_tensorflow")
    image = torch_states.make_images(2, 1, *size, 3)
    x = nchw(torch, image).float()
    expected = module.interpolate_bilinear_2d_like_tensorflow1x(
        x, size=(299, 299), align_corners=False
    )
    actual = resize.bilinear_tf1(jax.numpy.asarray(image), 299, 299)
    # One rounding of float32, at values up to 255.
    np.testing.assert_allclose(
        actual, expected.numpy().transpose(0, 2, 3, 1), atol=4e-5
    )


@pytest.fixture(scope="module")
def pytorch_lpips():
    """Return torch and the network of the lpips package with random weights."""
    module, torch = oracle.import_package("lpips"), oracle.import_package("torch")
    net = module.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    state = {k: torch.from_numpy(v) for k, v in torch_states.lpips_state().items()}
    names = {}
    for stage in range(1, 6):
        for index, _ in getattr(net.net, f"slice{stage}").named_children():
            names[f"features.{index}"] = f"net.slice{stage}.{index}"
    renamed = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if key.startswith("lin"):
            renamed[key] = renamed[f"lins.{key[3:]}"] = value
        elif layer in names:
            renamed[f"{names[layer]}.{kind}"] = value
    missing, unexpected = net.load_state_dict(renamed, strict=False)
    assert not unexpected and set(missing) == {
        "scaling_layer.shift",
        "scaling_layer.scale",
    }
    return torch, net


@pytest.mark.parametrize("size", [IMAGES["lpips"][1:3], (16, 16), (64, 48), (224, 200)])
def test_lpips(pytorch_lpips, size):
    torch, net = pytorch_lpips
    image, other = (torch_states.make_images(s, 1, *size, 3) for s in (3, 4))
    params = lpips.from_torch(torch_states.lpips_state())
    x = [nchw(torch, i).float() / 127.5 - 1.0 for i in (image, other)]
    with torch.no_grad():
        expected, _ = net(*x, retPerLayer=True)
        scaled = net.scaling_layer(x[0])
        expected_stages = net.net(scaled)
    expected = expected.numpy().reshape(-1)
    stages = lpips.stage_activations(params, scaled.numpy().transpose(0, 2, 3, 1))
    errors = [
        assert_close(a, b.numpy().transpose(0, 2, 3, 1))
        for a, b in zip(stages, expected_stages, strict=True)
    ]
    distance = jax.jit(lpips.distance)(params, image, other)
    errors.append(assert_close(distance, expected))
    if size == IMAGES["lpips"][1:3]:
        check_goldens("lpips", {"distance": expected})
    print([f"{e:.1e}" for e in errors])


def save_torchscript(torch, state, path):
    """Write a TorchScript file whose state has these names."""
    root = torch.nn.Identity()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Identity())
            module = getattr(module, parent)
        module.register_buffer(leaf, torch.from_numpy(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), path)


def convert(command, folder, network, *sources, code=0):
    """Run `ul convert`, which writes to folder / w, and return its output."""
    return command(
        "convert",
        network,
        f"--source={','.join(map(str, sources))}",
        f"--weights_dir={folder / 'w'}",
        "--license=Apache-2.0",
        "--url=https://x.org",
        code=code,
    )


def test_convert_from_pytorch_and_torchscript(command, tmp_path):
    """The names of NVIDIA's file are taken from other code: the file was not available."""
    torch, state = oracle.import_package("torch"), torch_states.inception_state()
    for name in state:
        if name.endswith("bn.weight"):  # NVIDIA's file has none
            state[name] = np.ones_like(state[name])
    expected = inception.from_torch(state)
    pytorch, script = tmp_path / "plain.pth", tmp_path / "script.pt"
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, pytorch)
    save_torchscript(torch, torch_states.torchscript_state(state), script)
    for source in (pytorch, script):
        convert(command, tmp_path, "inception", source)
        loaded = weights.load(tmp_path / "w", inception)
        for name in expected:
            np.testing.assert_array_equal(loaded[name], expected[name])


def test_convert_the_real_heads(command, tmp_path):
    """The lpips package includes its trained heads."""
    torch, package = oracle.import_package("torch"), oracle.import_package("lpips")
    heads = Path(package.__file__).parent / "weights/v0.1/vgg.pth"
    state = torch_states.lpips_state()
    vgg = {k: torch.from_numpy(v) for k, v in state.items() if not k.startswith("lin")}
    torch.save(vgg, tmp_path / "vgg16.pth")
    out = convert(command, tmp_path, "lpips", heads, code=65)
    assert "must have all tensors of lpips" in out and "features.0.weight" in out
    convert(command, tmp_path, "lpips", tmp_path / "vgg16.pth", heads)
    loaded = weights.load(tmp_path / "w", lpips)
    trained = torch.load(heads, map_location="cpu", weights_only=True)
    for stage in range(5):
        expected = trained[f"lin{stage}.model.1.weight"].reshape(-1)
        np.testing.assert_array_equal(loaded[f"lin{stage}"], expected)


class OpensFile:
    """An object that opens a file for writing when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_convert_runs_nothing_from_a_pickle(command, tmp_path):
    torch = oracle.import_package("torch")
    torch.save({"fc.weight": OpensFile(tmp_path / "ran")}, tmp_path / "bad.pth")
    out = convert(command, tmp_path, "inception", tmp_path / "bad.pth", code=65)
    assert "bad.pth must be a PyTorch file of named tensors only" in out
    torch.save({"fc.weight": 3}, tmp_path / "other.pth")
    out = convert(command, tmp_path, "inception", tmp_path / "other.pth", code=65)
    assert "other.pth must be a PyTorch file of named tensors only" in out
    assert not (tmp_path / "ran").exists() and not (tmp_path / "w").exists()
