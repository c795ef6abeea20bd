"""Weight files: what is saved is loaded; all else is refused with one line of advice."""

import hashlib
import json
import types

import numpy as np
import pytest
import safetensors.numpy

from tests.lib import torch_states
from tests.lib.breaks import Break
from tests.lib.commands import ROOT
from ul.core.errors import DataError, StorageError, UnusablePath
from ul.metrics.features import lpips, weights

TINY = types.SimpleNamespace(
    __name__="ul.metrics.features.tiny",
    FILE="tiny.safetensors",
    shapes=lambda: {"a.weight": (2, 3), "a.bias": (3,), "b": (4,)},
)


def tensors():
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(s, np.float32) for k, s in TINY.shapes().items()}


def save(folder, arrays=None):
    return weights.save(
        folder,
        TINY,
        arrays or tensors(),
        license="MIT",
        source="https://x.org/tiny.pth",
    )


def assert_refused(folder, *excerpts, kind=DataError):
    """Check that `load` raises exactly this kind of error, with one line of text."""
    with pytest.raises(kind) as error:
        weights.load(folder, TINY)
    line = str(error.value)
    assert type(error.value) is kind and "\n" not in line
    for excerpt in excerpts:
        assert excerpt in line, line


def test_saved_weights_are_loaded(tmp_path):
    digest = save(tmp_path / "w")
    loaded = weights.load(tmp_path / "w", TINY)
    assert loaded.keys() == TINY.shapes().keys()
    for name, array in tensors().items():
        np.testing.assert_array_equal(loaded[name], array)
    entry = json.loads((tmp_path / "w" / "manifest.json").read_text())[TINY.FILE]
    source = "https://x.org/tiny.pth"
    assert entry == {"sha256": digest, "license": "MIT", "source": source}


def test_the_manifest_keeps_other_networks(tmp_path):
    save(tmp_path)
    other = types.SimpleNamespace(**vars(TINY) | {"FILE": "other.safetensors"})
    weights.save(tmp_path, other, tensors(), license="BSD", source="y")
    assert weights.read_manifest(tmp_path).keys() == {TINY.FILE, other.FILE}
    assert weights.load(tmp_path, TINY) and weights.load(tmp_path, other)


@pytest.mark.parametrize("folder", ["", "absent"])
def test_an_absent_file_is_missing(tmp_path, folder):
    command = "python -m ul convert tiny --source"
    assert_refused(
        tmp_path / folder, "is missing", command, kind=weights.MissingWeights
    )


@pytest.mark.parametrize("byte", [0, 9, 100, -1])
def test_a_flipped_byte_is_refused(tmp_path, byte):
    save(tmp_path)
    path = tmp_path / TINY.FILE
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert_refused(tmp_path, str(path), "SHA-256", "ul convert tiny")


def test_a_truncated_file_is_refused_also_with_its_digest(tmp_path):
    save(tmp_path)
    path = tmp_path / TINY.FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert_refused(tmp_path, "SHA-256")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps({TINY.FILE: {"sha256": digest}}))
    assert_refused(tmp_path, str(path), "cannot be read")
    for content in (b"", b"\x80", b"\x80\x09"):
        path.write_bytes(content)
        assert_refused(tmp_path, "SHA-256")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"x" * 40, b"\x80\x02}q\x00." * 9])
def test_a_pickle_under_the_files_name_is_never_read(tmp_path, content):
    save(tmp_path)
    (tmp_path / TINY.FILE).write_bytes(content)
    assert_refused(tmp_path, "is a pickle, which is never read", "ul convert tiny")
    (tmp_path / "manifest.json").unlink()
    assert_refused(tmp_path, "is a pickle")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
def test_a_pickle_in_place_of_the_file_is_named(tmp_path, suffix):
    (tmp_path / f"tiny{suffix}").write_bytes(b"whatever")
    assert_refused(
        tmp_path,
        f"tiny{suffix} must be a safetensors file; it is a pickle",
        "ul convert tiny",
    )
    save(tmp_path)  # beside the file a pickle is ignored
    assert weights.load(tmp_path, TINY)


def test_a_header_that_begins_like_a_pickle_is_read(tmp_path):
    """The length of the JSON may be 0x0280, which are the first bytes of a pickle."""
    content = safetensors.numpy.save(tensors())
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    padded = (
        (0x0280).to_bytes(8, "little")
        + header.ljust(0x0280)
        + content[8 + len(header) :]
    )
    (tmp_path / TINY.FILE).write_bytes(padded)
    digest = hashlib.sha256(padded).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps({TINY.FILE: {"sha256": digest}}))
    assert weights.load(tmp_path, TINY).keys() == TINY.shapes().keys()


def test_a_file_without_an_entry_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert_refused(
        tmp_path,
        "must have an entry in",
        "manifest.json",
        "ul convert tiny --source",
    )
    (tmp_path / "manifest.json").unlink()
    assert_refused(tmp_path, "must have an entry in")


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny.safetensors": {}}', '{"x": 1}'])
def test_a_broken_manifest_is_refused(tmp_path, text):
    save(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    assert_refused(tmp_path, "manifest.json")


@pytest.mark.parametrize(
    "change, excerpts",
    [
        ({"b": np.zeros((4, 1), np.float32)}, ("has b of shape (4, 1), not (4,)",)),
        ({"b": None}, ("lacks b",)),
        ({"c": np.zeros(1, np.float32)}, ("has the unknown tensor c",)),
        ({"b": np.zeros(4, np.float16)}, ("has b of type float16, not float32",)),
        (
            {"b": np.asarray([0, 0, np.nan, 0], np.float32)},
            ("has b with values that are not finite",),
        ),
        (
            {k: np.zeros(7, np.float32) for k in ("a.bias", "b", "c", "d", "e")},
            ("a.bias of shape (7,)", "b of shape (7,)", "and 2 more"),
        ),
    ],
)
def test_other_tensors_are_refused(tmp_path, change, excerpts):
    """They are refused also with a correct digest, as after a change of the network."""
    arrays = {k: v for k, v in (tensors() | change).items() if v is not None}
    with pytest.raises(DataError, match="tiny.pth must have the tensors of tiny"):
        save(tmp_path, arrays)
    assert not list(tmp_path.iterdir())
    changed_network = types.SimpleNamespace(
        **vars(TINY) | {"shapes": lambda: {k: v.shape for k, v in arrays.items()}}
    )
    if all(v.dtype == np.float32 and np.isfinite(v).all() for v in arrays.values()):
        weights.save(tmp_path, changed_network, arrays, license="MIT", source="x")
        assert_refused(tmp_path, *excerpts)
    else:
        with pytest.raises(DataError, match=excerpts[0]):
            weights.check_arrays("x", arrays, TINY)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        save(tmp_path / "file" / "w")
    (tmp_path / TINY.FILE).mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        save(tmp_path)
    with pytest.raises(UnusablePath, match="cannot be read: .*Is a directory"):
        weights.load(tmp_path, TINY)


def test_transposed_views_are_saved_in_the_order_of_the_view(tmp_path):
    """safetensors alone would write the memory in its own order."""
    view = np.arange(6, dtype=np.float32).reshape(3, 2).T
    save(tmp_path, tensors() | {"a.weight": view})
    np.testing.assert_array_equal(weights.load(tmp_path, TINY)["a.weight"], view)


def test_convert_from_safetensors(command, tmp_path):
    """The whole command works without PyTorch."""
    state = torch_states.lpips_state()
    heads = {k: v for k, v in state.items() if k.startswith("lin")}
    vgg = {k: v for k, v in state.items() if k not in heads}
    sources = tmp_path / "heads.safetensors", tmp_path / "vgg.safetensors"
    for path, tensors in zip(sources, (heads, vgg), strict=True):
        safetensors.numpy.save_file(tensors, path)
    out = command(
        "convert",
        "lpips",
        f"--source={','.join(map(str, sources))}",
        f"--weights_dir={tmp_path / 'w'}",
        "--license=MIT",
        "--url=https://x.org",
    )
    assert "lpips_vgg.safetensors: 14,716,160 parameters, SHA-256" in out
    loaded = weights.load(tmp_path / "w", lpips)
    for name, array in lpips.from_torch(state).items():
        np.testing.assert_array_equal(loaded[name], array)


def test_convert_without_pytorch_states_what_to_install(command, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    (tmp_path / "x.pth").write_bytes(b"PK")
    out = command(
        "convert",
        "inception",
        f"--source={tmp_path / 'x.pth'}",
        f"--weights_dir={tmp_path / 'w'}",
        "--license=MIT",
        "--url=https://x.org",
        code=64,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert "pip install '.[convert]' in a clone" in out
    assert "'.[convert]'" in out and not (tmp_path / "w").exists()


BREAKS = (
    Break(
        "the digest of network weights is not compared",
        "ul/metrics/features/weights.py",
        'if digest != entry["sha256"]:',
        "if not digest:",
        "test_a_flipped_byte_is_refused",
    ),
    Break(
        "transposed weights saved in the order of memory",
        "ul/metrics/features/weights.py",
        "{k: np.ascontiguousarray(v) for k, v in arrays.items()}",
        "arrays",
        "test_transposed_views_are_saved_in_the_order_of_the_view",
    ),
    Break(
        "a pickle under the name of the weights",
        "ul/metrics/features/weights.py",
        "if is_pickle(content):\n        raise",
        "if False:\n        raise",
        "test_a_pickle_under_the_files_name_is_never_read",
    ),
)
