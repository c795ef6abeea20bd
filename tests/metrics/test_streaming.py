"""Statistics of features in batches: equal to those of all images at once."""

import jax
import numpy as np
import pytest

from tests.lib.fakes import WIDTH, FakeNetworks
from ul.core import mesh as meshes
from ul.core.errors import DataError
from ul.metrics import frechet, registry, streaming
from ul.metrics.extractors import FEATURE_NETWORKS, FeatureNetworks, to_rgb
from ul.metrics.streaming import Comparison, FeatureExtractor, FeatureStatistics

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
IMAGES = RNG.integers(0, 256, (90, *SHAPE), np.uint8)
FEATURES = ("dinov2", "pixels_8x8", "pool", "pool_rows", "probs", "spatial")


def metric(name):
    return {m.name: m for m in registry.metrics()}[name]


def value(name, comparison):
    return metric(name).value(comparison, metric(name).feature)


def statistics_of_images(num_devices, batches):
    mesh = meshes.make(devices=jax.devices()[:num_devices])
    extract = FeatureExtractor(FEATURES, FakeNetworks(SHAPE), mesh)
    statistics = FeatureStatistics(FEATURES)
    for batch in batches:
        statistics.add(extract(batch))
    return statistics


def numbers(statistics):
    gaussians = statistics.as_reference({}).gaussians
    return [gaussians, statistics.rows(), statistics.score.value(), statistics.count]


@pytest.mark.parametrize(
    ("num_devices", "cuts"), [(8, ()), (2, (1, 2, 80)), (1, tuple(range(7, 90, 7)))]
)
def test_statistics_depend_neither_on_batches_nor_on_devices(num_devices, cuts):
    expected = numbers(statistics_of_images(1, [IMAGES]))
    batches = np.split(IMAGES, cuts)
    actual = numbers(statistics_of_images(num_devices, batches))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def statistics_of(**features):
    statistics = FeatureStatistics(tuple(features))
    statistics.add(features)
    return statistics


def compare(samples, reference):
    return Comparison(samples, reference.as_reference({}))


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("fid", "pool"),
        ("rfid", "pool"),
        ("sfid", "spatial"),
        ("fd_dinov2", "dinov2"),
        ("fvd", "i3d"),
        ("frechet", "pixels_8x8"),
    ],
)
def test_each_distance_reads_its_own_features(name, feature):
    """Only these features are shifted, by d: the distance is |d|^2."""
    x, shift = RNG.normal(size=(50, 4)), np.asarray([1.0, 2.0, 0.0, 0.5])
    features = ("pool", "spatial", "dinov2", "i3d", "pixels_8x8")
    samples = statistics_of(**{f: x + shift * (f == feature) for f in features})
    comparison = compare(samples, statistics_of(**dict.fromkeys(features, x)))
    np.testing.assert_allclose(value(name, comparison), shift @ shift, rtol=1e-9)


def test_precision_and_recall_compare_the_kept_rows():
    x = RNG.normal(size=(40, 3))
    both = np.concatenate([x, x + 100.0])
    every_other = FeatureStatistics(("pool_rows",), keep=np.arange(0, 80, 2))
    for batch in np.split(both, [5, 33]):
        every_other.add({"pool_rows": batch})
    np.testing.assert_array_equal(every_other.rows(), both[::2])
    comparison = compare(statistics_of(pool_rows=x[::2]), every_other)
    assert value("precision", comparison) == 1.0
    assert value("recall", comparison) == 0.5


def test_statistics_resume_from_arrays():
    x = RNG.normal(size=(30, 3))
    features, keep = ("pool", "pool_rows"), np.asarray([1, 12, 13, 29])
    whole, first, resumed = (FeatureStatistics(features, keep) for _ in range(3))
    for statistics, batch in ((whole, x[:12]), (whole, x[12:]), (first, x[:12])):
        statistics.add({"pool": batch, "pool_rows": batch})
    resumed.restore(first.to_arrays())
    resumed.add({"pool": x[12:], "pool_rows": x[12:]})
    np.testing.assert_array_equal(resumed.rows(), x[keep])
    np.testing.assert_array_equal(
        resumed.gaussian("pool")[1], whole.gaussian("pool")[1]
    )


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("fid", 49_999, "FID@49999"),
        ("fid", 50_000, "FID"),
        ("rfid", 500, "rFID@500"),
        ("fd_dinov2", 20, "FD-DINOv2@20"),
        ("frechet", 20, "gen. pixel Frechet (not FID)"),
        ("psnr", 20, "PSNR, dB"),
    ],
)
def test_only_fifty_thousand_samples_have_the_plain_title(name, count, expected):
    column = metric(name).columns[0]
    assert metric(name).column_title(column, count) == expected


def test_obstacles_say_what_a_metric_needs():
    networks = FakeNetworks(SHAPE, only=("inception",))
    assert metric("fid").obstacle(SHAPE, 2, networks) is None
    assert metric("precision").obstacle(SHAPE, 4, networks) is None
    few = metric("precision").obstacle(SHAPE, 3, networks)
    assert few == "needs at least 4 images; got 3"
    missing = metric("fd_dinov2").obstacle(SHAPE, 9, networks)
    assert "dinov2.safetensors" in missing
    odd = metric("frechet").obstacle((9, 9, 3), 9, networks)
    assert odd == "needs sides divisible by 8; got 9x9"
    small = metric("lpips").obstacle(SHAPE, 9, networks)
    assert small == "needs sides of at least 16 pixels; got 8x8"
    assert "--weights_dir" in metric("fid").obstacle(SHAPE, 9, FeatureNetworks(None))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("inception", (2, 32, 32, 3), {"pool": 2048, "spatial": 2023, "probs": 1008}),
        ("dinov2", (2, 32, 32, 3), 1024),
        ("i3d", (2, 10, 32, 32, 3), 400),
    ],
)
def test_the_networks_return_the_features_that_metrics_read(name, shape, expected):
    """Traced without weights."""
    function, module, _ = FEATURE_NETWORKS[name]
    params = {
        k: jax.ShapeDtypeStruct(s, np.float32) for k, s in module.shapes().items()
    }
    output = jax.eval_shape(function, params, jax.ShapeDtypeStruct(shape, np.uint8))
    assert jax.tree.map(lambda x: x.shape[1], output) == expected
    sources = streaming.FEATURE_SOURCES.values()
    parts = {part for network, part in sources if network == name}
    assert parts == (set(expected) if isinstance(expected, dict) else {None})


def test_missing_files_are_named(tmp_path):
    reason = metric("fid").obstacle(SHAPE, 9, FeatureNetworks(str(tmp_path)))
    assert "inception_v3_fid.safetensors is missing" in reason


def test_a_damaged_network_is_an_error_and_not_skipped(tmp_path):
    (tmp_path / "inception_v3_fid.safetensors").write_bytes(b"\x80\x04 not weights")
    with pytest.raises(DataError, match="pickle"):
        metric("fid").obstacle(SHAPE, 9, FeatureNetworks(str(tmp_path)))


def test_features_that_are_not_finite_are_refused():
    statistics = FeatureStatistics(("pool",))
    with pytest.raises(DataError, match="pool features must be finite"):
        statistics.add({"pool": np.asarray([[1.0, np.nan]])})


def test_a_reference_of_other_dimensions_is_refused():
    samples = statistics_of(pool=RNG.normal(size=(9, WIDTH)))
    other = statistics_of(pool=RNG.normal(size=(9, 4)))
    with pytest.raises(DataError, match="must have 6 dimensions; got 4"):
        compare(samples, other).frechet_distance("pool")


def test_more_noise_is_further_away():
    """Also for networks of random weights."""
    mesh, features = meshes.make(), ("pool", "spatial", "dinov2")
    extract = FeatureExtractor(features, FakeNetworks(SHAPE), mesh)
    real = RNG.integers(60, 200, (400, *SHAPE)).astype(np.uint8)

    def statistics(image):
        accumulated = FeatureStatistics(features)
        accumulated.add(extract(image))
        return accumulated

    reference = statistics(real)

    def distances(scale):
        noise = RNG.normal(scale=scale, size=real.shape)
        noisy = np.clip(real + noise, 0, 255).astype(np.uint8)
        comparison = compare(statistics(noisy), reference)
        return np.asarray([comparison.frechet_distance(f) for f in features])

    assert np.all(distances(10) < distances(40))
    assert np.all(distances(40) < distances(120))


def test_gray_becomes_three_channels():
    assert to_rgb(IMAGES).shape == (90, 8, 8, 3)
    np.testing.assert_array_equal(to_rgb(IMAGES)[..., 2], IMAGES[..., 0])
    assert to_rgb(np.zeros((1, 2, 2, 3))).shape == (1, 2, 2, 3)


def test_the_frechet_distance_does_not_depend_on_the_order():
    x = RNG.normal(size=(30, 3))
    a = frechet.fit_gaussian(x)
    b = frechet.fit_gaussian(x[RNG.permutation(30)])
    np.testing.assert_allclose(frechet.distance(a, b), 0.0, atol=1e-9)
