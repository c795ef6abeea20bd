"""A cache of latents on a disk: whole or refused, and the same whoever wrote it."""

import numpy as np
import pytest
from etils import epath

from ul.core.errors import ConfigError, DataError, NonFiniteError, StorageError
from ul.data import latent_cache, pipeline
from ul.data.latent_cache import Latents

SHAPE, COUNTS, SIZE = (2, 3, 4), {"train": 23, "eval": 7}, 5
RNG = np.random.default_rng(0)
Z = {s: RNG.normal(size=(n, *SHAPE)).astype(np.float32) for s, n in COUNTS.items()}
SPLITS = {
    s: {"count": n, "orientations": 1, "fingerprint": f"f-{s}"}
    for s, n in COUNTS.items()
}
ENCODER = {"workdir": "/runs/s1", "step": 8, "weights": "ema", "encoder": "0123abcd"}


def identity(**changes):
    return {
        "encoder": ENCODER,
        "data": {"source": {"kind": "digits"}, "flip": False},
        "latent_shape": list(SHAPE),
        "splits": SPLITS,
        "dtype": "float16",
        "shard_examples": SIZE,
    } | changes


def batches(shard, at_most=2):
    """Rows of a shard, a few at a time, as an encoder gives them."""
    last = shard.first + shard.count
    for first in range(shard.first, last, at_most):
        row = np.arange(first, min(first + at_most, last))
        yield {"row": row, "label": row % 3, "z_clean": Z[shard.split][row]}


def write(out, processes=1, **changes):
    """As launch.encode does it: process p writes every P-th shard."""
    wanted = identity(**changes)
    latent_cache.store(out).begin(wanted, latent_cache.unlike)
    every = latent_cache.plan(wanted)
    records = {}
    for p in range(processes):
        for shard in every[p::processes]:
            records[shard] = latent_cache.store(out).finished(
                shard
            ) or latent_cache.write(
                latent_cache.store(out), shard, batches(shard), wanted["dtype"]
            )
    return latent_cache.finish(
        latent_cache.store(out), wanted, [records[s] for s in every]
    )


@pytest.fixture
def out(tmp_path):
    made = epath.Path(tmp_path / "latents")
    made.mkdir()
    return made


def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize("dtype", latent_cache.DTYPES)
def test_what_was_written_is_read(out, dtype):
    manifest = write(out, dtype=dtype)
    assert latent_cache.load(latent_cache.store(out))[0] == manifest
    latent_cache.check(latent_cache.store(out), manifest, identity(dtype=dtype))
    latent_cache.store(out).verify(manifest, part=(0, 1))
    for split, n in COUNTS.items():
        source = Latents(latent_cache.store(out), manifest, split)
        assert len(source) == n
        kept = np.stack([source[i]["z_clean"] for i in range(n)])
        assert kept.dtype == latent_cache.DTYPES[dtype]
        # Half a unit in the last place: 11, 8 and 24 bits of mantissa.
        bits = {"float16": 11, "bfloat16": 8, "float32": 24}[dtype]
        np.testing.assert_allclose(
            kept.astype(np.float32), Z[split], rtol=2.0**-bits, atol=2.0**-25
        )
        assert [source[i]["label"] for i in range(n)] == [i % 3 for i in range(n)]


def test_statistics_are_of_what_is_kept(out):
    manifest = write(out)
    z = Z["train"].astype(np.float16).astype(np.float64)
    found = manifest["splits"]["train"]["statistics"]
    np.testing.assert_allclose(found["mean"], z.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found["std"], z.std((0, 1, 2)), rtol=1e-12)
    assert (found["min"], found["max"]) == (z.min(), z.max())


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path, processes):
    outs = [epath.Path(tmp_path / name) for name in ("one", "many")]
    for path, count in zip(outs, (1, processes), strict=True):
        path.mkdir()
        write(path, count)
    assert contents(outs[0]) == contents(outs[1])


@pytest.mark.parametrize("batch", [1, 3])
def test_an_interrupted_write_goes_on_to_the_same_bytes(tmp_path, batch):
    """The third shard's batches end in an error, as after kill -9: part of it is there."""
    whole, out = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    for path in (whole, out):
        path.mkdir()
    write(whole)
    every = latent_cache.plan(identity())
    latent_cache.store(out).begin(identity(), latent_cache.unlike)
    for shard in every[:2]:
        latent_cache.write(latent_cache.store(out), shard, batches(shard), "float16")

    def interrupted():
        yield from list(batches(every[2], batch))[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latent_cache.write(latent_cache.store(out), every[2], interrupted(), "float16")
    with pytest.raises(DataError, match=r"half written, .* run the same launch.encode"):
        latent_cache.load(latent_cache.store(out))
    kept = [latent_cache.store(out).finished(shard) is not None for shard in every]
    assert kept == [True] * 2 + [False] * (len(every) - 2)
    write(out, processes=2)
    assert contents(out) == contents(whole)


def test_another_cache_is_not_written_over(out):
    write(out)
    before = contents(out)
    for changes, message in (
        ({"dtype": "float32"}, "dtype: float16 there, float32 here"),
        ({"shard_examples": 4}, "shard_examples: 5 there, 4 here"),
        ({"encoder": ENCODER | {"encoder": "ffff0000"}}, "ffff0000 .* here"),
    ):
        with pytest.raises(ConfigError, match=message):
            write(out, **changes)
    write(out, encoder=ENCODER | {"workdir": "/moved/s1"})
    assert contents(out).keys() == before.keys()


def other(split, **changes):
    return SPLITS | {split: SPLITS[split] | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": ENCODER | {"encoder": "ffff0000", "step": 9}},
            r"encoder: 0123abcd \(/runs/s1 step 8, ema\) there, ffff0000 .* step 9",
        ),
        ({"latent_shape": [2, 3, 8]}, r"latent_shape: \[2, 3, 4\] there"),
        ({"splits": other("train", count=24)}, "train count: 23 there, 24 here"),
        ({"splits": other("eval", count=8)}, "eval count: 7 there, 8 here"),
        (
            {
                "splits": other("train", fingerprint="g"),
                "data": {"source": {"kind": "digits"}, "flip": True},
            },
            "fingerprint: f-train there, g here; data.flip: False there, True here",
        ),
    ],
)
def test_a_cache_of_something_else_is_refused(out, changes, message):
    manifest = write(out)
    with pytest.raises(ConfigError, match=message) as e:
        latent_cache.check(latent_cache.store(out), manifest, identity(**changes))
    assert e.value.code == 64 and "\n" not in str(e.value)


def damage(path, at=None):
    content = bytearray(path.read_bytes())
    at = len(content) // 2 if at is None else at
    content[at] ^= 1
    path.write_bytes(bytes(content))


def first_shard(out):
    return out / "train-00000-of-00005.array_record"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda out: (out / "manifest.json").unlink(), "half written"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read"),
        (lambda out: (out / "manifest.json").write_text("{}"), "of no cache"),
        (lambda out: first_shard(out).unlink(), "00000-of-00005.* is missing"),
        (
            lambda out: first_shard(out).write_bytes(
                first_shard(out).read_bytes()[:99]
            ),
            "has 99 bytes, not",
        ),
        (lambda out: damage(first_shard(out)), "00000-of-00005.* is damaged"),
        (lambda out: damage(first_shard(out), 3), "00000-of-00005.* is damaged"),
    ],
)
def test_a_damaged_cache_is_refused_and_mended(out, harm, message):
    write(out)
    before = contents(out)
    harm(out)
    with pytest.raises(DataError, match=message) as e:
        manifest, _ = latent_cache.load(latent_cache.store(out))
        latent_cache.store(out).verify(manifest, part=(0, 1))
    assert e.value.code == 65 and "\n" not in str(e.value)
    write(out)
    assert contents(out) == before


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DataError, match="is no cache of latents; write one"):
        latent_cache.load(latent_cache.store(tmp_path / "nowhere"))


def test_the_processes_share_the_digests(out):
    """Each shard is somebody's."""
    manifest = write(out)
    damage(first_shard(out))
    damage(out / "eval-00001-of-00002.array_record")
    for i in range(7):
        if i in (0, 6):
            with pytest.raises(DataError, match="is damaged"):
                latent_cache.store(out).verify(manifest, part=(i, 7))
        else:
            latent_cache.store(out).verify(manifest, part=(i, 7))
    latent_cache.store(out).verify(manifest, part=None)  # sizes are right


def test_a_record_damaged_later_is_noticed_when_it_is_read(out):
    """Whatever byte of the latents flips: nothing wrong reaches a batch in silence."""
    manifest = write(out)
    path = first_shard(out)
    whole = path.read_bytes()
    places = [i for i in range(0, len(whole), 97) if whole[i : i + 8] != bytes(8)]
    noticed = 0
    for at in places:
        path.write_bytes(whole)
        damage(path, at)
        source = Latents(latent_cache.store(out), manifest, "train")
        try:
            for i in range(SIZE):
                found = source[i]
                want = Z["train"][i].astype(np.float16)
                np.testing.assert_array_equal(found["z_clean"], want)
                assert found["label"] == i % 3
        except DataError as e:
            assert path.name in str(e) and "\n" not in str(e)
            noticed += 1
    assert noticed > 3


def test_a_shard_in_the_place_of_another_is_noticed(out):
    manifest = write(out)
    other_shard = out / "train-00001-of-00005.array_record"
    first_shard(out).write_bytes(other_shard.read_bytes())
    with pytest.raises(DataError, match="record 2 is another"):
        Latents(latent_cache.store(out), manifest, "train")[2]


def test_latents_that_cannot_be_kept_are_refused():
    z = np.full((1, *SHAPE), 1e5, np.float32)
    with pytest.raises(ConfigError, match="float16 cannot hold latents of up to 1e"):
        latent_cache.stored(z, "float16")
    np.testing.assert_allclose(
        latent_cache.stored(z, "bfloat16").astype(np.float32), z, rtol=2.0**-8
    )
    z[0, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="stage1.step"):
        latent_cache.stored(z, "float32")


def test_too_few_examples_are_no_shard(out):
    shard = latent_cache.plan(identity())[0]
    with pytest.raises(DataError, match="2 examples came, not 5"):
        latent_cache.write(
            latent_cache.store(out), shard, list(batches(shard))[:1], "float16"
        )
    assert latent_cache.store(out).finished(shard) is None


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    shard = latent_cache.plan(identity())[0]
    with pytest.raises(StorageError, match="cannot be written"):
        latent_cache.write(
            latent_cache.store(tmp_path / "no"), shard, batches(shard), "float16"
        )


def test_training_reads_a_cache_in_the_order_of_images(out):
    """Labels come from the shuffle alone; two epochs, the second in another order."""
    manifest = write(out)
    cached = pipeline.endless(
        Latents(latent_cache.store(out), manifest, "train"), seed=3
    )
    source = pipeline.in_turn(
        [{"image": np.zeros((2, 2, 1), np.uint8), "label": i % 3} for i in range(23)]
    )
    images = pipeline.examples(
        source, shape=(2, 2, 1), flip=False, seed=3, shuffle=True
    )
    assert [cached[i]["label"] for i in range(46)] == [
        images[i]["label"] for i in range(46)
    ]
