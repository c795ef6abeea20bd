"""The networks against PyTorch's, with the same random weights: `make oracle`.

UPDATE_GOLDENS=1 rewrites goldens.json with what PyTorch gives.
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


def close(ours, theirs, limit=1e-4):
    """The largest difference, in units of the values' root mean square."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.sqrt(np.mean(np.square(theirs)))
    assert error < limit, f"{error:.2e}"
    return error


def golden(name, theirs):
    """What PyTorch gives is what the default suite compares with."""
    few = {
        k: [float(f"{v:.7g}") for v in torch_states.excerpt(a)]
        for k, a in theirs.items()
    }
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    if os.environ.get("UPDATE_GOLDENS"):
        goldens[name] = {"images": IMAGES[name]} | few
        GOLDENS.write_text(json.dumps(goldens, indent=1) + "\n")
    for key, values in few.items():
        close(values, goldens[name][key], 1e-5)


def nchw(torch, image):
    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def their_inception(tmp_path_factory):
    """torch-fidelity's extractor with random weights, and a dict that its layers fill."""
    name = "torch_fidelity.feature_extractor_inceptionv3"
    module, torch = oracle.package(name), oracle.package("torch")
    path = tmp_path_factory.mktemp("torch") / "random.pth"
    state = {k: torch.from_numpy(v) for k, v in torch_states.inception_state().items()}
    torch.save(state, path)
    wanted = ["2048", "logits_unbiased"]
    net = module.FeatureExtractorInceptionV3(
        "x", wanted, feature_extractor_weights_path=str(path)
    )
    seen = {}
    for layer, child in net.named_modules():
        child.register_forward_hook(
            lambda _, __, out, layer=layer: seen.__setitem__(layer, out)
        )
    return torch, net, seen


def test_inception_layer_by_layer(their_inception):
    torch, net, seen = their_inception
    image = torch_states.images(0, *IMAGES["inception"])
    pool, logits = net(nchw(torch, image))
    params = inception.from_torch(torch_states.inception_state())
    x = (resize.bilinear_tf1(jax.numpy.asarray(image), 299, 299) - 128) / 128
    errors = {}
    for block, outputs in inception.blocks(params, x):
        theirs = seen[block or "MaxPool_2"].numpy().transpose(0, 2, 3, 1)
        errors[block] = close(np.concatenate(outputs, -1), theirs)
    ours = jax.jit(inception.features)(params, image)
    spatial = seen["Mixed_6d.branch1x1"][:, :7].permute(0, 2, 3, 1).flatten(1)
    theirs = {
        "pool": pool.numpy(),
        "spatial": spatial.numpy(),
        "probs": torch.softmax(logits, 1).numpy(),
    }
    assert ours["spatial"].shape == (1, 2023)
    errors |= {k: close(ours[k], theirs[k]) for k in theirs}
    golden("inception", theirs)
    print({k: f"{v:.1e}" for k, v in errors.items()})


@pytest.mark.parametrize("size", [(299, 299), (301, 298), (512, 400), (1, 1)])
def test_inception_at_other_sizes(their_inception, size):
    torch, net, _ = their_inception
    image = torch_states.images(1, 1, *size, 3)
    pool, _ = net(nchw(torch, image))
    params = inception.from_torch(torch_states.inception_state())
    close(jax.jit(inception.features)(params, image)["pool"], pool.numpy())


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (299, 299), (512, 384), (37, 300)])
def test_resize(size):
    torch = oracle.package("torch")
    module = oracle.package("torch_fidelity.interpolate_compat_tensorflow")
    image = torch_states.images(2, 1, *size, 3)
    x = nchw(torch, image).float()
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x(
        x, size=(299, 299), align_corners=False
    )
    ours = resize.bilinear_tf1(jax.numpy.asarray(image), 299, 299)
    # Of 255 levels: one rounding of float32.
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=4e-5)


@pytest.fixture(scope="module")
def their_lpips():
    module, torch = oracle.package("lpips"), oracle.package("torch")
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
def test_lpips(their_lpips, size):
    torch, net = their_lpips
    image, other = (torch_states.images(s, 1, *size, 3) for s in (3, 4))
    params = lpips.from_torch(torch_states.lpips_state())
    x = [nchw(torch, i).float() / 127.5 - 1.0 for i in (image, other)]
    with torch.no_grad():
        theirs, stages = net(*x, retPerLayer=True)
        scaled = net.scaling_layer(x[0])
        activations = net.net(scaled)
    ours = lpips.stages(params, scaled.numpy().transpose(0, 2, 3, 1))
    errors = [
        close(a, b.numpy().transpose(0, 2, 3, 1))
        for a, b in zip(ours, activations, strict=True)
    ]
    distance = jax.jit(lpips.distance)(params, image, other)
    errors.append(close(distance, theirs.numpy().reshape(-1)))
    if size == IMAGES["lpips"][1:3]:
        golden("lpips", {"distance": theirs.numpy().reshape(-1)})
    print([f"{e:.1e}" for e in errors])


def save_torchscript(torch, state, path):
    """A TorchScript file whose state has these names."""
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
    return command(
        "convert",
        network,
        f"--source={','.join(map(str, sources))}",
        f"--weights_dir={folder / 'w'}",
        "--licence=Apache-2.0",
        "--url=https://x.org",
        code=code,
    )


def test_convert_from_pytorch_and_torchscript(command, tmp_path):
    """Names as in NVIDIA's file by what others wrote of it: the file was not at hand."""
    torch, state = oracle.package("torch"), torch_states.inception_state()
    for name in state:
        if name.endswith("bn.weight"):  # which that file does not have
            state[name] = np.ones_like(state[name])
    ours = inception.from_torch(state)
    plain, script = tmp_path / "plain.pth", tmp_path / "script.pt"
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, plain)
    save_torchscript(torch, torch_states.torchscript_state(state), script)
    for source in (plain, script):
        convert(command, tmp_path, "inception", source)
        loaded = weights.load(tmp_path / "w", inception)
        for name in ours:
            np.testing.assert_array_equal(loaded[name], ours[name])


def test_convert_the_real_heads(command, tmp_path):
    """The lpips package has its trained heads with it."""
    torch, package = oracle.package("torch"), oracle.package("lpips")
    heads = Path(package.__file__).parent / "weights/v0.1/vgg.pth"
    state = torch_states.lpips_state()
    rest = {k: torch.from_numpy(v) for k, v in state.items() if not k.startswith("lin")}
    torch.save(rest, tmp_path / "vgg16.pth")
    out = convert(command, tmp_path, "lpips", heads, code=65)
    assert "lacks features.0.weight, which lpips needs" in out
    convert(command, tmp_path, "lpips", tmp_path / "vgg16.pth", heads)
    loaded = weights.load(tmp_path / "w", lpips)
    theirs = torch.load(heads, map_location="cpu", weights_only=True)
    for stage in range(5):
        expected = theirs[f"lin{stage}.model.1.weight"].reshape(-1)
        np.testing.assert_array_equal(loaded[f"lin{stage}"], expected)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_convert_runs_nothing_from_a_pickle(command, tmp_path):
    torch = oracle.package("torch")
    torch.save({"fc.weight": Code(tmp_path / "ran")}, tmp_path / "bad.pth")
    out = convert(command, tmp_path, "inception", tmp_path / "bad.pth", code=65)
    assert "bad.pth is damaged or holds other things than named" in out
    torch.save({"fc.weight": 3}, tmp_path / "other.pth")
    out = convert(command, tmp_path, "inception", tmp_path / "other.pth", code=65)
    assert "other.pth is damaged or holds other things than named" in out
    assert not (tmp_path / "ran").exists() and not (tmp_path / "w").exists()
