"""Reference files: what is written is read, and other files are refused."""

import json
import zipfile

import numpy as np
import pytest

from tests.lib.breaks import Break
from tests.lib.fakes import FakeNetworks
from ul.core.errors import ConfigError, DataError
from ul.evaluation import samples_npz
from ul.metrics import references
from ul.metrics.streaming import FeatureStatistics

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
ROWS = RNG.normal(size=(20, 4))


def fail_if_called(image):
    raise AssertionError("no images should be read")


def fake_inception(digest="d1"):
    return FakeNetworks(SHAPE, digest=digest).get("inception")


def write_reference(path, digest="d1"):
    """Write a reference of ROWS and return its statistics."""
    needs = ("pool", "pool_rows", "spatial", "dinov2")
    statistics = FeatureStatistics(needs, keep=np.arange(5))
    statistics.add({n: ROWS if n != "spatial" else ROWS + 1.0 for n in needs})
    protocol = {
        "schema": 1,
        "image_shape": list(SHAPE),
        "networks": {"inception": fake_inception(digest).protocol()},
    }
    references.write(path, references.to_arrays(statistics, protocol))
    return statistics


def test_a_written_reference_is_read(tmp_path):
    statistics = write_reference(tmp_path / "r.npz")
    reference = references.read(str(tmp_path / "r.npz"), SHAPE, fail_if_called)
    for need in ("pool", "spatial", "dinov2"):
        for a, b in zip(
            reference.gaussians[need], statistics.gaussian(need), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(reference.rows(), ROWS[:5], rtol=1e-6)
    assert reference.protocol["num_images"] == 20
    assert len(reference.protocol["sha256"]) == 64
    assert reference.has("pool_rows") and not reference.has("i3d")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as data:
        assert {"mu", "sigma", "mu_s", "sigma_s", "mu_dinov2"} <= set(data)
        assert json.loads(str(data["protocol"]))["image_shape"] == [8, 8, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def write_adm_file(path, **images):
    """Write statistics of ROWS in the format of the ADM evaluator."""
    mean, covariance = ROWS.mean(0), np.cov(ROWS.T)
    arrays = dict(mu=mean, sigma=covariance, mu_s=mean, sigma_s=covariance)
    np.savez(path, **arrays, **images)


def test_files_of_the_adm_evaluator_are_read(tmp_path):
    images = RNG.integers(0, 256, (7, 16, 16, 3), np.uint8)
    write_adm_file(tmp_path / "VIRTUAL.npz", arr_0=images)
    calls = []
    reference = references.read(
        str(tmp_path / "VIRTUAL.npz"), SHAPE, lambda i: calls.append(i) or ROWS[:7]
    )
    assert "not stated" in reference.protocol["protocol"] and not calls
    assert reference.has("pool") and reference.has("spatial")
    assert not reference.has("dinov2")
    assert reference.rows() is reference.rows()  # computed once
    np.testing.assert_array_equal(calls, [images])
    references.check_networks(reference, ("pool",), {"inception": fake_inception()})
    write_adm_file(tmp_path / "bare.npz")
    bare = references.read(str(tmp_path / "bare.npz"), SHAPE, fail_if_called)
    assert not bare.has("pool_rows")


def test_a_reference_of_another_protocol_is_refused(tmp_path):
    path = str(tmp_path / "r.npz")
    write_reference(tmp_path / "r.npz")
    with pytest.raises(
        ConfigError, match=r"images of shape \[16, 16, 3\]; .* shape \[8, 8, 1\]"
    ):
        references.read(path, (16, 16, 3), fail_if_called)
    reference = references.read(path, SHAPE, fail_if_called)
    same = {"inception": fake_inception("d1")}
    references.check_networks(reference, ("pool", "dinov2"), same)
    different = {"inception": fake_inception("d2")}
    with pytest.raises(ConfigError, match="sha256 is d1 in the file and d2 now"):
        references.check_networks(reference, ("pool",), different)


def test_a_damaged_file_is_refused(tmp_path):
    """One byte of the covariance is changed."""
    path = tmp_path / "r.npz"
    write_reference(path)
    with zipfile.ZipFile(path) as zipped:
        offset = zipped.getinfo("sigma.npy").header_offset + 250
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        references.read(str(path), SHAPE, fail_if_called)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros(3)}, "must contain the statistics mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "must be a mean .* and a covariance"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "must be finite"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "eigenvalues are 0 or more; .* -1"),
        ({"mu": np.zeros(2), "sigma": np.triu(np.ones((2, 2)))}, "must be symmetric"),
        (
            {"mu": np.zeros(2) + 0j, "sigma": np.eye(2) + 1j},
            "must be real .* complex128",
        ),
        ({"mu": np.asarray([{}]), "sigma": np.eye(1)}, "it holds pickled objects"),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        references.read(str(tmp_path / "x.npz"), SHAPE, fail_if_called)


def test_missing_files_and_other_formats_are_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"\x80\x04K\x01.")
    for name in ("x.npz", "nothing.npz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            references.read(str(tmp_path / name), SHAPE, fail_if_called)


def test_images_of_an_adm_file_must_be_images(tmp_path):
    write_adm_file(tmp_path / "x.npz", arr_0=np.zeros((3, 4)))
    reference = references.read(str(tmp_path / "x.npz"), SHAPE, fail_if_called)
    with pytest.raises(DataError, match="arr_0 must be .* it is float64"):
        reference.rows()


def test_the_samples_file_equals_that_of_savez(tmp_path):
    image = RNG.integers(0, 256, (5, 4, 4, 1), np.uint8)
    label = np.arange(5, dtype=np.int32)
    with samples_npz.open_writer(str(tmp_path / "d" / "a.npz"), 5, (4, 4, 1)) as writer:
        writer.add(image[:3], label[:3])
        writer.add(image[3:], label[3:])
        assert not (tmp_path / "d" / "a.npz").exists()
    with np.load(tmp_path / "d" / "a.npz", allow_pickle=False) as data:
        assert sorted(data) == ["arr_0", "arr_1"]
        assert data["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(data["arr_0"], image.repeat(3, -1))
        np.testing.assert_array_equal(data["arr_1"], label)


def test_an_interrupted_samples_file_is_removed(tmp_path):
    with pytest.raises(DataError, match="on purpose"):
        with samples_npz.open_writer(str(tmp_path / "a.npz"), 5, (4, 4, 1)):
            raise DataError("on purpose")
    assert not (tmp_path / "a.npz").exists()


BREAKS = (
    Break(
        "a reference of other network weights is accepted",
        "ul/metrics/references.py",
        "if recorded[key] != current[key]:",
        'if key == "file" and recorded[key] != current[key]:',
        "test_a_reference_of_another_protocol_is_refused",
    ),
    Break(
        "pickles in a reference file are loaded",
        "ul/core/npz.py",
        "np.load(file, allow_pickle=False) as data,",
        "np.load(file, allow_pickle=True) as data,",
        "test_other_files_are_refused",
    ),
)
