import json
import zipfile

import numpy as np
import pytest

from tests.lib.fakes import Fakes
from ul.core.errors import ConfigError, DataError
from ul.evaluation import samples_npz
from ul.metrics import references
from ul.metrics.streaming import Statistics

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
ROWS = RNG.normal(size=(20, 4))


def none(image):
    raise AssertionError("no images were to be read")


def made(path, digest="d1", **changes):
    seen = Statistics(("pool", "pool_rows", "spatial", "dinov2"), keep=np.arange(5))
    seen.add({n: ROWS if n != "spatial" else ROWS + 1.0 for n in seen.needs})
    protocol = {
        "schema": 1,
        "image_shape": list(SHAPE),
        "networks": {
            "inception": Fakes(SHAPE, digest=digest).get("inception").protocol()
        },
    } | changes
    references.write(path, references.content(seen, protocol))
    return seen


def test_what_is_written_is_read(tmp_path):
    seen = made(tmp_path / "r.npz")
    found = references.read(str(tmp_path / "r.npz"), SHAPE, none)
    for need in ("pool", "spatial", "dinov2"):
        for a, b in zip(found.gaussians[need], seen.gaussian(need), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found.rows(), ROWS[:5], rtol=1e-6)
    assert found.protocol["num_images"] == 20 and len(found.protocol["sha256"]) == 64
    assert found.has("pool_rows") and not found.has("i3d")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as data:
        assert {"mu", "sigma", "mu_s", "sigma_s", "mu_dinov2"} <= set(data)
        assert json.loads(str(data["protocol"]))["image_shape"] == [8, 8, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def adm(path, **more):
    mean, covariance = ROWS.mean(0), np.cov(ROWS.T)
    arrays = dict(mu=mean, sigma=covariance, mu_s=mean, sigma_s=covariance)
    np.savez(path, **arrays, **more)


def test_the_files_of_the_adm_evaluator_are_read_and_said_to_state_nothing(tmp_path):
    images = RNG.integers(0, 256, (7, 16, 16, 3), np.uint8)
    adm(tmp_path / "VIRTUAL.npz", arr_0=images)
    read = []
    found = references.read(
        str(tmp_path / "VIRTUAL.npz"), SHAPE, lambda i: read.append(i) or ROWS[:7]
    )
    assert "not stated" in found.protocol["protocol"] and not read
    assert found.has("pool") and found.has("spatial") and not found.has("dinov2")
    assert found.rows() is found.rows()  # the network sees them once
    np.testing.assert_array_equal(read, [images])
    references.check(found, ("pool",), {"inception": Fakes(SHAPE).get("inception")})
    adm(tmp_path / "bare.npz")
    bare = references.read(str(tmp_path / "bare.npz"), SHAPE, none)
    assert not bare.has("pool_rows")


def test_another_protocol_is_refused(tmp_path):
    path = str(tmp_path / "r.npz")
    made(tmp_path / "r.npz")
    with pytest.raises(ConfigError, match=r"\[8, 8, 1\], the run's \[16, 16, 3\]"):
        references.read(path, (16, 16, 3), none)
    found = references.read(path, SHAPE, none)
    same = {"inception": Fakes(SHAPE, digest="d1").get("inception")}
    references.check(found, ("pool", "dinov2"), same)
    other = {"inception": Fakes(SHAPE, digest="d2").get("inception")}
    with pytest.raises(ConfigError, match="inception sha256 d1 there, d2 here"):
        references.check(found, ("pool",), other)


def test_damage_is_seen(tmp_path):
    """One byte of the covariance."""
    path = tmp_path / "r.npz"
    made(path)
    with zipfile.ZipFile(path) as zipped:
        at = zipped.getinfo("sigma.npy").header_offset + 250
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        references.read(str(path), SHAPE, none)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros(3)}, "no mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "no mean and covariance"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.asarray([{}]), "sigma": np.eye(1)}, "cannot be read"),  # a pickle
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        references.read(str(tmp_path / "x.npz"), SHAPE, none)


def test_no_file_and_no_npz(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"\x80\x04K\x01.")
    for name in ("x.npz", "nothing.npz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            references.read(str(tmp_path / name), SHAPE, none)


def test_images_of_an_adm_file_must_be_images(tmp_path):
    adm(tmp_path / "x.npz", arr_0=np.zeros((3, 4)))
    found = references.read(str(tmp_path / "x.npz"), SHAPE, none)
    with pytest.raises(DataError, match="arr_0 is float64"):
        found.rows()


def test_samples_are_archived_as_savez_does(tmp_path):
    image = RNG.integers(0, 256, (5, 4, 4, 1), np.uint8)
    label = np.arange(5, dtype=np.int32)
    with samples_npz.writing(str(tmp_path / "d" / "a.npz"), 5, (4, 4, 1)) as kept:
        kept.add(image[:3], label[:3])
        kept.add(image[3:], label[3:])
        assert not (tmp_path / "d" / "a.npz").exists()
    with np.load(tmp_path / "d" / "a.npz", allow_pickle=False) as data:
        assert sorted(data) == ["arr_0", "arr_1"]
        assert data["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(data["arr_0"], image.repeat(3, -1))
        np.testing.assert_array_equal(data["arr_1"], label)


def test_an_archive_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="mine"):
        with samples_npz.writing(str(tmp_path / "a.npz"), 5, (4, 4, 1)):
            raise DataError("mine")
    assert not (tmp_path / "a.npz").exists()
