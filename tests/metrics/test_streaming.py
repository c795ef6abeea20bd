import jax
import numpy as np
import pytest

from tests.lib.fakes import WIDTH, FakeNetworks
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.metrics import frechet, streaming
from ul.metrics.extractors import KNOWN, Networks, coloured
from ul.metrics.streaming import METRICS, Comparison, Extractor, Reference, Statistics

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
IMAGES = RNG.integers(0, 256, (90, *SHAPE), np.uint8)
NEEDS = ("dinov2", "pixels_8x8", "pool", "pool_rows", "probs", "spatial")


def seen(devices, parts):
    mesh = meshes.make(devices=jax.devices()[:devices])
    extract, found = Extractor(NEEDS, FakeNetworks(SHAPE), mesh), Statistics(NEEDS)
    for part in parts:
        found.add(extract(part))
    return found


def numbers(found):
    gaussians = {n: found.gaussian(n) for n in NEEDS if n not in ("probs", "pool_rows")}
    return [gaussians, found.rows(), found.score.value(), found.count]


@pytest.mark.parametrize(
    ("devices", "cuts"), [(8, ()), (2, (1, 2, 80)), (1, tuple(range(7, 90, 7)))]
)
def test_statistics_depend_neither_on_the_split_nor_on_the_devices(devices, cuts):
    want = numbers(seen(1, [IMAGES]))
    got = numbers(seen(devices, np.split(IMAGES, cuts)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def of(**features):
    found = Statistics(tuple(features))
    found.add(features)
    return found


def reference(statistics):
    rows = statistics.rows if "pool_rows" in statistics.needs else None
    needs = set(statistics.needs) - {"pool_rows", "probs"}
    return Reference({n: statistics.gaussian(n) for n in needs}, rows, {})


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("fid", "pool"),
        ("rfid", "pool"),
        ("sfid", "spatial"),
        ("fd_dinov2", "dinov2"),
        ("fvd", "i3d"),
        ("frechet", "pixels_8x8"),
    ],
)
def test_each_distance_reads_its_own_features(name, need):
    """Shifted by d in those alone: |d|^2."""
    x, shift = RNG.normal(size=(50, 4)), np.asarray([1.0, 2.0, 0.0, 0.5])
    every = ("pool", "spatial", "dinov2", "i3d", "pixels_8x8")
    a = of(**{n: x + shift * (n == need) for n in every})
    against = Comparison(a, reference(of(**dict.fromkeys(every, x))))
    np.testing.assert_allclose(METRICS[name].value(against), shift @ shift, rtol=1e-9)


def test_precision_and_recall_are_of_the_kept_rows():
    x = RNG.normal(size=(40, 3))
    both = np.concatenate([x, x + 100.0])
    every_other = Statistics(("pool_rows",), keep=np.arange(0, 80, 2))
    for part in np.split(both, [5, 33]):
        every_other.add({"pool_rows": part})
    np.testing.assert_array_equal(every_other.rows(), both[::2])
    against = Comparison(of(pool_rows=x[::2]), reference(every_other))
    assert METRICS["precision"].value(against) == 1.0
    assert METRICS["recall"].value(against) == 0.5


def test_statistics_go_on_after_a_file():
    x = RNG.normal(size=(30, 3))
    needs, keep = ("pool", "pool_rows"), np.asarray([1, 12, 13, 29])
    whole, first, rest = (Statistics(needs, keep) for _ in range(3))
    for found, part in ((whole, x[:12]), (whole, x[12:]), (first, x[:12])):
        found.add({"pool": part, "pool_rows": part})
    rest.restore(first.arrays())
    rest.add({"pool": x[12:], "pool_rows": x[12:]})
    np.testing.assert_array_equal(rest.rows(), x[keep])
    np.testing.assert_array_equal(rest.gaussian("pool")[1], whole.gaussian("pool")[1])


@pytest.mark.parametrize(
    ("name", "count", "want"),
    [
        ("fid", 49_999, "FID@49999"),
        ("fid", 50_000, "FID"),
        ("rfid", 500, "rFID@500"),
        ("fd_dinov2", 20, "FD-DINOv2@20"),
        ("frechet", 20, None),
        ("psnr_db", 20, None),
    ],
)
def test_only_fifty_thousand_samples_have_the_plain_name(name, count, want):
    assert streaming.printed(name, count) == want


def test_what_cannot_be_measured_says_why():
    some = FakeNetworks(SHAPE, only=("inception",))
    assert streaming.obstacle("fid", SHAPE, 2, some) is None
    assert streaming.obstacle("precision", SHAPE, 4, some) is None
    assert "4 images or more" in streaming.obstacle("precision", SHAPE, 3, some)
    assert "dinov2.safetensors" in streaming.obstacle("fd_dinov2", SHAPE, 9, some)
    assert "divisible by 8" in streaming.obstacle("frechet", (9, 9, 3), 9, some)
    none = Networks(None)
    assert "--weights_dir" in streaming.obstacle("fid", SHAPE, 9, none)


@pytest.mark.parametrize(
    ("name", "shape", "want"),
    [
        ("inception", (2, 32, 32, 3), {"pool": 2048, "spatial": 2023, "probs": 1008}),
        ("dinov2", (2, 32, 32, 3), 1024),
        ("i3d", (2, 10, 32, 32, 3), 400),
    ],
)
def test_the_networks_give_what_the_metrics_read(name, shape, want):
    """Traced alone, without weights."""
    fn, module, _ = KNOWN[name]
    params = {
        k: jax.ShapeDtypeStruct(s, np.float32) for k, s in module.shapes().items()
    }
    found = jax.eval_shape(fn, params, jax.ShapeDtypeStruct(shape, np.uint8))
    assert jax.tree.map(lambda x: x.shape[1], found) == want
    parts = {part for network, part in streaming.SOURCES.values() if network == name}
    assert parts == (set(want) if isinstance(want, dict) else {None})


def test_missing_files_are_named(tmp_path):
    reason = streaming.obstacle("fid", SHAPE, 9, Networks(str(tmp_path)))
    assert "inception_v3_fid.safetensors is missing" in reason


def test_a_damaged_network_is_an_error_and_nothing_to_skip(tmp_path):
    (tmp_path / "inception_v3_fid.safetensors").write_bytes(b"\x80\x04 not weights")
    with pytest.raises(DataError, match="pickle"):
        streaming.obstacle("fid", SHAPE, 9, Networks(str(tmp_path)))


def test_features_that_are_not_finite_are_refused():
    found = Statistics(("pool",))
    with pytest.raises(DataError, match="pool features"):
        found.add({"pool": np.asarray([[1.0, np.nan]])})


def test_a_reference_of_other_dimensions_is_refused():
    ours = of(pool=RNG.normal(size=(9, WIDTH)))
    theirs = reference(of(pool=RNG.normal(size=(9, 4))))
    with pytest.raises(DataError, match="4 dimensions, not 6"):
        Comparison(ours, theirs).frechet("pool")


def test_more_noise_is_further_away():
    """Of a network of random weights too."""
    mesh, needs = meshes.make(), ("pool", "spatial", "dinov2")
    extract = Extractor(needs, FakeNetworks(SHAPE), mesh)
    real = RNG.integers(60, 200, (400, *SHAPE)).astype(np.uint8)

    def statistics(image):
        found = Statistics(needs)
        found.add(extract(image))
        return found

    against = reference(statistics(real))

    def distances(spread):
        noise = RNG.normal(scale=spread, size=real.shape)
        noisy = np.clip(real + noise, 0, 255).astype(np.uint8)
        of_noisy = Comparison(statistics(noisy), against)
        return np.asarray([of_noisy.frechet(need) for need in needs])

    assert np.all(distances(10) < distances(40))
    assert np.all(distances(40) < distances(120))


def test_grey_becomes_three_channels():
    assert coloured(IMAGES).shape == (90, 8, 8, 3)
    np.testing.assert_array_equal(coloured(IMAGES)[..., 2], IMAGES[..., 0])
    assert coloured(np.zeros((1, 2, 2, 3))).shape == (1, 2, 2, 3)


def test_frechet_of_features_needs_no_shuffle():
    """Order does not matter to moments."""
    x = RNG.normal(size=(30, 3))
    a = frechet.fit_gaussian(x)
    b = frechet.fit_gaussian(x[RNG.permutation(30)])
    np.testing.assert_allclose(frechet.distance(a, b), 0.0, atol=1e-9)
